package answer

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
)

// Field is a part of an answer that is compared by itself. Entries of allowed_differences.yaml name
// it.
type Field string

const (
	Code     Field = "status.code"
	Message  Field = "status.message"
	Warnings Field = "warnings"
	// SeriesLabels is the list of label sets and its order.
	SeriesLabels Field = "series.labels"
	// SeriesChunks is the list of chunks of each label set that is in both answers: times, types,
	// data bytes, hashes, order.
	SeriesChunks Field = "series.chunks"
	// Pieces is how often a label set is sent; it must be once.
	Pieces Field = "series.pieces"
	// Framing is the division of series into messages: at most the requested batch size, and
	// nothing after the hints.
	Framing   Field = "frames"
	HintsSent Field = "hints"
	Blocks    Field = "hints.queried_blocks"
	StatsSent Field = "hints.query_stats"
	List      Field = "list"
	InfoField Field = "info"
	InfoTSDBs Field = "info.tsdb_infos"
)

// Fields are all fields.
var Fields = []Field{
	Code, Message, Warnings, SeriesLabels, SeriesChunks, Pieces, Framing, HintsSent, Blocks,
	StatsSent, List, InfoField, InfoTSDBs,
}

// Difference is the first difference in one field.
type Difference struct {
	Field Field
	What  string
}

func (d Difference) String() string { return string(d.Field) + ": " + d.What }

// Options describe the request, as far as it affects the comparison.
type Options struct {
	// BatchSize is the response_batch_size of a Series request.
	BatchSize int64
	// Mention is text that the message of a rejection must contain.
	Mention string
	// AskedHints is set if the request carried hints. Only then does a gateway in production send
	// hints.
	AskedHints bool
}

// Diff compares the answer got with the answer want, field by field. It returns at most one
// difference for each field.
func Diff(want, got *Answer, opts Options) []Difference {
	d := &differ{opts: opts}
	if want.Code != got.Code {
		d.add(Code, "want %s (%s), got %s (%s)", want.Code, want.Message, got.Code, got.Message)
	}
	if want.Code != codes.OK || got.Code != codes.OK {
		// Rejections are compared by meaning. Data before a rejection is ignored, because clients
		// discard it.
		if got.Code != codes.OK {
			d.message(got)
		}
		return d.out
	}
	w, g := slices.Sorted(slices.Values(want.Warnings)), slices.Sorted(slices.Values(got.Warnings))
	if !slices.Equal(w, g) {
		d.add(Warnings, "want %q, got %q", w, g)
	}
	d.series(want, got)
	d.framing(got)
	d.hints(want, got)
	if !slices.Equal(want.List, got.List) {
		d.add(List, "%s", firstOf(want.List, got.List))
	}
	d.info(want.Info, got.Info)
	return d.out
}

type differ struct {
	opts Options
	out  []Difference
}

func (d *differ) add(f Field, format string, args ...any) {
	for _, x := range d.out {
		if x.Field == f {
			return
		}
	}
	d.out = append(d.out, Difference{f, fmt.Sprintf(format, args...)})
}

func (d *differ) message(got *Answer) {
	if got.Message == "" {
		d.add(Message, "the refusal (%s) says nothing", got.Code)
	}
	if d.opts.Mention != "" && !strings.Contains(got.Message, d.opts.Mention) {
		d.add(
			Message, "%q does not name %q, which is what is wrong with the request", got.Message,
			d.opts.Mention,
		)
	}
}

func firstOf(want, got []string) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Sprintf("entry %d of %d: got %q, want no more", i, len(got), got[i])
		case i >= len(got):
			return fmt.Sprintf("entry %d of %d: got no more, want %q", i, len(want), want[i])
		case want[i] != got[i]:
			return fmt.Sprintf("entry %d: got %q, want %q", i, got[i], want[i])
		}
	}
	return "equal"
}

// series compares the list of label sets, and the chunks of equal label sets.
func (d *differ) series(want, got *Answer) {
	ws, gs := labelStrings(want.Series), labelStrings(got.Series)
	for i := 1; i < len(gs); i++ {
		if gs[i] == gs[i-1] {
			d.add(Pieces, "%s is sent in pieces: series %d and %d of %d", gs[i], i-1, i, len(gs))
		}
	}
	wj, _ := Join(want.Series, always)
	gj, _ := Join(got.Series, always)
	ws, gs = labelStrings(wj), labelStrings(gj)
	if !slices.Equal(ws, gs) {
		d.add(
			SeriesLabels, "%d series, want %d; %s; %s", len(gs), len(ws), firstOf(ws, gs),
			setDifference(ws, gs),
		)
	}
	for i := 1; i < len(gj); i++ {
		if labels.Compare(gj[i-1].Labels, gj[i].Labels) >= 0 {
			d.add(SeriesLabels, "not sorted: %s comes before %s", gs[i-1], gs[i])
		}
	}
	byLabels := map[string]Series{}
	for _, s := range gj {
		byLabels[s.Labels.String()] = s
	}
	for i, w := range wj {
		g, ok := byLabels[ws[i]]
		if !ok {
			continue
		}
		if what := diffChunks(w.Chunks, g.Chunks); what != "" {
			d.add(SeriesChunks, "%s: %s%s", ws[i], what, lists(w.Chunks, g.Chunks))
		}
	}
	for _, s := range gj {
		for i, c := range s.Chunks {
			if i > 0 && c.Equal(s.Chunks[i-1]) && !repeats(wj) {
				d.add(SeriesChunks, "%s: chunk %d repeats the one before: %s", s.Labels, i, c)
			}
			for j, p := range c.Parts {
				if p != nil && p.Hash != xxhash.Sum64(p.Data) {
					d.add(
						SeriesChunks, "%s: chunk %d: %s: hash %x is not the data's (%x)", s.Labels,
						i, PartNames[j], p.Hash, xxhash.Sum64(p.Data),
					)
				}
			}
		}
	}
}

// repeats reports whether an answer contains a chunk twice in a row.
func repeats(ss []Series) bool {
	for _, s := range ss {
		for i := 1; i < len(s.Chunks); i++ {
			if s.Chunks[i].Equal(s.Chunks[i-1]) {
				return true
			}
		}
	}
	return false
}

// setDifference returns the missing and the surplus entries, ignoring order.
func setDifference(want, got []string) string {
	only := func(a, b []string) []string {
		in := map[string]bool{}
		for _, x := range b {
			in[x] = true
		}
		return slices.DeleteFunc(slices.Clone(a), func(x string) bool { return in[x] })
	}
	missing, extra := only(want, got), only(got, want)
	if len(missing)+len(extra) == 0 {
		return "the same series in another order"
	}
	const some = 4
	return fmt.Sprintf(
		"%d missing: %v; %d too many: %v", len(missing), missing[:min(some, len(missing))],
		len(extra), extra[:min(some, len(extra))],
	)
}

func always(Series, Series) bool { return true }

func labelStrings(ss []Series) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = s.Labels.String()
	}
	return out
}

// lists formats both lists of chunks if they are short enough to read.
func lists(want, got []Chunk) string {
	if len(want)+len(got) > 40 {
		return ""
	}
	var b strings.Builder
	for name, cs := range map[string][]Chunk{"want": want, "got": got} {
		fmt.Fprintf(&b, "\n    %s:", name)
		for _, c := range cs {
			fmt.Fprintf(&b, "\n      %s", c)
		}
	}
	return b.String()
}

func diffChunks(want, got []Chunk) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Sprintf("chunk %d of %d is one too many: %s", i, len(got), got[i])
		case i >= len(got):
			return fmt.Sprintf("chunk %d of %d is missing: %s", i, len(want), want[i])
		}
		if what := diffChunk(want[i], got[i]); what != "" {
			return fmt.Sprintf("chunk %d (%d wanted, %d got): %s", i, len(want), len(got), what)
		}
	}
	return ""
}

func diffChunk(w, g Chunk) string {
	if w.MinTime != g.MinTime || w.MaxTime != g.MaxTime {
		return fmt.Sprintf("got %s, want %s", g, w)
	}
	for j := range w.Parts {
		wp, gp := w.Parts[j], g.Parts[j]
		switch {
		case wp == nil && gp == nil:
		case wp == nil || gp == nil:
			return fmt.Sprintf("parts: got %s, want %s", g, w)
		case wp.Type != gp.Type:
			return fmt.Sprintf("%s: type %d, want %d", PartNames[j], gp.Type, wp.Type)
		case !bytes.Equal(wp.Data, gp.Data):
			return fmt.Sprintf(
				"%s of [%d, %d]: %d data bytes, want %d; first difference at %d", PartNames[j],
				g.MinTime, g.MaxTime, len(gp.Data), len(wp.Data), firstByte(wp.Data, gp.Data),
			)
		case wp.Hash != gp.Hash:
			return fmt.Sprintf("%s: hash %x, want %x", PartNames[j], gp.Hash, wp.Hash)
		}
	}
	return ""
}

func firstByte(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Equal reports whether two chunks are the same to a client.
func (c Chunk) Equal(o Chunk) bool { return diffChunk(c, o) == "" }

func (c Chunk) String() string {
	var parts []string
	for j, p := range c.Parts {
		if p != nil {
			parts = append(
				parts,
				fmt.Sprintf(
					"%s(%d, %d bytes, %08x)", PartNames[j], p.Type, len(p.Data), p.Hash>>32,
				),
			)
		}
	}
	return fmt.Sprintf("[%d, %d]{%s}", c.MinTime, c.MaxTime, strings.Join(parts, " "))
}

// framing checks the answer's messages against the request. It does not compare gateways, because
// each may end frames where it likes.
func (d *differ) framing(got *Answer) {
	ended := false
	for i, f := range got.Frames {
		switch {
		case ended:
			d.add(Framing, "frame %d (%s) follows the hints", i, f.Kind)
		case f.Kind == "unknown":
			d.add(Framing, "frame %d holds nothing that a client knows", i)
		case f.Batch && d.opts.BatchSize <= 1:
			d.add(
				Framing, "frame %d is a batch, and response_batch_size is %d", i, d.opts.BatchSize,
			)
		case f.Kind == "series" && !f.Batch && d.opts.BatchSize > 1:
			d.add(
				Framing, "frame %d is a single series, and response_batch_size is %d", i,
				d.opts.BatchSize,
			)
		case f.Batch && f.Series == 0:
			d.add(Framing, "frame %d is an empty batch", i)
		case f.Batch && int64(f.Series) > d.opts.BatchSize:
			d.add(
				Framing, "frame %d holds %d series, and response_batch_size is %d", i, f.Series,
				d.opts.BatchSize,
			)
		}
		ended = ended || f.Kind == "hints"
	}
}

func (d *differ) hints(want, got *Answer) {
	w, g := want.Hints, got.Hints
	if (w == nil) != (g == nil) {
		d.add(HintsSent, "hints sent: %v, want %v", g != nil, w != nil)
		return
	}
	if w == nil {
		return
	}
	if a, b := w.BlockSet(), g.BlockSet(); !slices.Equal(a, b) {
		d.add(Blocks, "%d blocks, want %d: got %v, want %v", len(b), len(a), b, a)
	}
	switch {
	case (w.Stats == nil) != (g.Stats == nil):
		d.add(StatsSent, "query stats sent: %v, want %v", g.Stats != nil, w.Stats != nil)
	case w.Stats != nil && *w.Stats != *g.Stats:
		d.add(StatsSent, "got %+v, want %+v", *g.Stats, *w.Stats)
	}
}

func (d *differ) info(w, g *Info) {
	if (w == nil) != (g == nil) {
		d.add(InfoField, "got %v, want %v", g, w)
		return
	}
	if w == nil {
		return
	}
	if !slices.Equal(w.TSDBs, g.TSDBs) {
		d.add(InfoTSDBs, "got %v, want %v", g.TSDBs, w.TSDBs)
	}
	a, b := *w, *g
	a.TSDBs, b.TSDBs = nil, nil
	if x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); x != y {
		d.add(InfoField, "got %s, want %s", y, x)
	}
}
