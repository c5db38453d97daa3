package block

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// nameRules say which labels of the block the final label sets have, and where external labels go.
type nameRules struct {
	external []extLabel // sorted by name
	dropped  []string   // sorted: names of the block to drop, without external ones
	// clash: the block has an external or dropped name, so that index order is not final order
	clash bool
}

// extLabel is an external label with its finished bytes.
type extLabel struct {
	name    string
	encoded []byte
}

func newNameRules(blockNames []string, external labels.Labels, dropped []string) nameRules {
	var r nameRules
	external.Range(func(l labels.Label) {
		encoded := storepb.AppendLabel(nil, l.Name, l.Value)
		r.external = append(r.external, extLabel{name: l.Name, encoded: encoded})
	})
	r.dropped = slices.Sorted(slices.Values(dropped))
	r.clash = clashes(blockNames, external, dropped)
	return r
}

// clashes reports whether an external or dropped name occurs among the sorted label names of a
// block.
func clashes(blockNames []string, external labels.Labels, dropped []string) (clash bool) {
	has := func(name string) bool {
		_, ok := slices.BinarySearch(blockNames, name)
		return ok
	}
	external.Range(func(l labels.Label) { clash = clash || has(l.Name) })
	return clash || slices.ContainsFunc(dropped, has)
}

// largest returns the largest external name; nil if there is none, or if the series are sorted
// anyway.
func (r *nameRules) largest() []byte {
	if r.clash || len(r.external) == 0 {
		return nil
	}
	return []byte(r.external[len(r.external)-1].name)
}

func (r *nameRules) class(name []byte) nameClass {
	if _, drop := slices.BinarySearch(r.dropped, string(name)); drop {
		return nameDropped
	}
	n := 0
	for ; n < len(r.external) && r.external[n].name <= string(name); n++ {
		if r.external[n].name == string(name) {
			return nameDropped
		}
	}
	return nameClass(n)
}

// maxSeriesLabels limits the bytes of the labels of one series. A series with more is an error. No
// scrape or rule makes such series.
const maxSeriesLabels = 64 << 20

// longLabelsError says that the series of a posting has more than maxSeriesLabels bytes of labels.
type longLabelsError struct {
	ref  uint32
	size int64
}

func (e *longLabelsError) Error() string {
	return fmt.Sprintf(
		"its labels need %d bytes, more than the %d that a series may have", e.size,
		maxSeriesLabels,
	)
}

// layout writes the final labels of series as finished protobuf bytes.
type layout struct {
	rules *nameRules
	prev  []uint32 // the slots of the series written last
	ends  []uint32 // by label of prev: where its bytes end, relative to the series' begin
	limit int      // bytes of the labels of a segment with more than one series

	external int // bytes of the external labels

	// unlisted says that some series had an external or dropped name that the block does not list.
	unlisted bool
}

func newLayout(rules *nameRules, limit int64) layout {
	l := layout{rules: rules, limit: int(limit)}
	for _, e := range rules.external {
		l.external += len(e.encoded)
	}
	return l
}

// segment lays out series of raw in the given order, as many as fit, and at least one. It returns
// the rest of order. guess is about how many bytes the labels of all take; reserve is called for
// those of a series that does not fit by itself.
func (l *layout) segment(
	raw *rawSeries, syms *symbols, order []uint32, guess int, keep func([]byte) bool,
	withChunks bool, reserve func(n int64) error,
) (*Segment, []uint32, error) {
	seg := &Segment{}
	l.prev, l.ends = l.prev[:0], l.ends[:0]
	if keep == nil {
		// All series stay, so that each array needs one allocation. A shard grows its arrays,
		// because it may keep few series.
		n, chunks := len(order), raw.chunks.Len()
		if guess > l.limit {
			n = n*l.limit/guess + 1
		}
		if n < raw.len() {
			chunks = chunks*n/raw.len() + 1
		}
		seg.labelEnd = make([]uint32, 0, n)
		if withChunks {
			seg.chunkEnd = make([]uint32, 0, n)
			seg.chunks = tsdbfmt.ChunkMetas{
				Ref:   make([]uint64, 0, chunks),
				Min:   make([]int64, 0, chunks),
				Max:   make([]int64, 0, chunks),
				Bound: make([]uint32, 0, chunks),
			}
		}
		seg.labels = make([]byte, 0, min(guess, l.limit))
	}
	begin := 0
	for k, i := range order {
		slots := raw.labels(int(i))
		if begin+l.atMost(slots, syms) > l.limit {
			n := l.size(slots, syms)
			if begin+n > l.limit && seg.Len() > 0 {
				return seg, order[k:], nil
			}
			if n > l.limit {
				if n > maxSeriesLabels {
					return nil, nil, &longLabelsError{ref: raw.refs[i], size: int64(n)}
				}
				if err := reserve(int64(n)); err != nil {
					return nil, nil, err
				}
				seg.labels = make([]byte, 0, n)
			}
		}
		seg.labels = l.appendSeries(seg.labels, begin, slots, syms)
		if keep != nil && !keep(seg.labels[begin:]) {
			// The next series cannot copy labels from this one.
			seg.labels = seg.labels[:begin]
			l.prev = l.prev[:0]
			continue
		}
		begin = len(seg.labels)
		seg.labelEnd = append(seg.labelEnd, uint32(begin))
		if withChunks {
			lo, hi := raw.chunkRange(int(i))
			seg.chunks.AppendRange(&raw.chunks, lo, hi)
			seg.chunkEnd = append(seg.chunkEnd, uint32(seg.chunks.Len()))
		}
	}
	return seg, nil, nil
}

const (
	// perLabel is the usual size of a label's tags and lengths in a message.
	perLabel = 6
	// maxPerLabel is their largest size.
	maxPerLabel = 3 + 3*binary.MaxVarintLen32
)

// atMost returns an upper bound of the bytes of a series' final labels, quickly.
func (l *layout) atMost(slots []uint32, syms *symbols) int {
	return len(slots)/2*(2*syms.largest+maxPerLabel) + l.external
}

// size returns the bytes of a series' final labels, or a little more.
func (l *layout) size(slots []uint32, syms *symbols) int {
	n := len(slots)/2*maxPerLabel + l.external
	for _, s := range slots {
		n += int(syms.size[s])
		if syms.size[s] > 127 {
			n += 2 * (binary.MaxVarintLen32 - 1) // its own length and that of the label
		}
	}
	return n
}

// guess estimates the bytes of the final labels of the given series from a sample, because the
// series of a segment are much alike.
func (l *layout) guess(raw *rawSeries, syms *symbols, order []uint32) int {
	const samples = 16
	bytes, n := 0, 0
	for k := 0; k < len(order); k += len(order)/samples + 1 {
		slots := raw.labels(int(order[k]))
		for _, s := range slots {
			bytes += int(syms.size[s])
		}
		bytes += perLabel*len(slots)/2 + l.external
		n++
	}
	if n == 0 {
		return 0
	}
	mean := bytes/n + 1
	return len(order) * (mean + mean/16)
}

// appendSeries appends the final labels of the series with these slots to dst, whose length is
// begin. It copies the bytes of leading labels that the previous series has, too; that series ends
// at begin.
func (l *layout) appendSeries(dst []byte, begin int, slots []uint32, syms *symbols) []byte {
	shared := 0
	for shared < len(l.prev) && shared < len(slots) && l.prev[shared] == slots[shared] {
		shared++
	}
	shared /= 2
	if shared > 0 {
		prevBegin := begin - int(l.ends[len(l.ends)-1])
		dst = append(dst, dst[prevBegin:prevBegin+int(l.ends[shared-1])]...)
	}
	l.ends = l.ends[:min(shared, len(l.ends))]
	written := 0 // external labels
	for i := shared; i > 0; i-- {
		if c := syms.names[slots[2*(i-1)]]; c >= 0 {
			written = int(c)
			break
		}
	}
	for i := 2 * shared; i < len(slots); i += 2 {
		name := slots[i]
		class := syms.names[name]
		if class == nameUnknown {
			class = l.rules.class(syms.at(name))
			syms.names[name] = class
			l.unlisted = l.unlisted || class == nameDropped && !l.rules.clash
		}
		if class != nameDropped {
			for ; written < int(class); written++ {
				dst = append(dst, l.rules.external[written].encoded...)
			}
			dst = storepb.AppendLabel(dst, syms.at(name), syms.at(slots[i+1]))
		}
		l.ends = append(l.ends, uint32(len(dst)-begin))
	}
	for _, e := range l.rules.external[written:] {
		dst = append(dst, e.encoded...)
	}
	// The last end is that of the whole series, including external labels after its last label. It
	// tells the next series where this one began.
	l.ends = append(l.ends, uint32(len(dst)-begin))
	l.prev = append(l.prev[:0], slots...)
	return dst
}
