package inspection

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"larder/internal/bucket/cost"
	"larder/internal/panics"
	"larder/internal/tsdbfmt"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// BlockReport says what a block consists of and costs.
type BlockReport struct {
	Bucket     string            `json:"bucket"`
	Block      string            `json:"block"`
	State      string            `json:"state"`
	Labels     map[string]string `json:"labels"`
	Resolution string            `json:"resolution"`
	Range      TimeRange         `json:"range"`
	Level      int               `json:"level"`
	Sources    int               `json:"sources"`
	Series     uint64            `json:"series"`
	Chunks     uint64            `json:"chunks"`
	Uploaded   *time.Time        `json:"uploaded"`
	Marks      []Marked          `json:"marks"`
	Index      Index             `json:"index"`
	ChunkFiles ChunkFiles        `json:"chunk_files"`
	Header     Header            `json:"header"`
	// LabelNames is the number of label names. Labels are the largest of them by posting lists.
	LabelNames int     `json:"label_names"`
	Largest    []Label `json:"largest_labels"`
	// Incomplete says which files the listing lacks, empty for none. Without an index the rest of
	// the report is empty.
	Incomplete string `json:"incomplete"`
	// Shape is what is irregular about the block, empty for nothing.
	Shape  string `json:"irregular"`
	Prices Prices `json:"prices"`
	Costs  []Cost `json:"costs"`
}

// Index is the index file of a block.
type Index struct {
	Version int   `json:"version"`
	Bytes   int64 `json:"bytes"`
	Pages   int64 `json:"pages"`
	Symbols int64 `json:"symbols"`
	// The sections in bytes.
	SymbolBytes  int64 `json:"symbol_bytes"`
	SeriesBytes  int64 `json:"series_bytes"`
	PostingBytes int64 `json:"posting_bytes"`
	TableBytes   int64 `json:"table_bytes"`
}

// ChunkFiles are the chunk files of a block.
type ChunkFiles struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	Pages int64 `json:"pages"`
}

// Header is the index header that a gateway keeps of a block.
type Header struct {
	// Bytes are those of the file, OpenBytes those in memory while it is open.
	Bytes     int64 `json:"bytes"`
	OpenBytes int64 `json:"open_bytes"`
	// BuildRequests and BuildBytes are what building it read of the bucket.
	BuildRequests int64 `json:"build_requests"`
	BuildBytes    int64 `json:"build_bytes"`
}

// Label is one label name of a block.
type Label struct {
	Name   string `json:"name"`
	Values int    `json:"values"`
	// Series is the number of series with the label, Bytes that of its posting lists. Both are
	// upper bounds, a few bytes for each list above the truth.
	Series int64 `json:"series"`
	Bytes  int64 `json:"bytes"`
	// Top is the value with the most series.
	Top       string `json:"top_value"`
	TopSeries int64  `json:"top_series"`

	top indexheader.List
}

// Prices are the figures of the bucket that the costs rest on.
type Prices struct {
	// Measured says that enough reads were sent to measure the bucket. Otherwise the figures are
	// the defaults of a gateway.
	Measured          bool    `json:"measured"`
	FirstByteSeconds  float64 `json:"first_byte_seconds"`
	BytesPerSecond    float64 `json:"bytes_per_second"`
	PerRequestSeconds float64 `json:"per_request_seconds"`
	USDPerRequest     float64 `json:"usd_per_request"`
}

// Cost is what reading a part of a block costs without a cache.
type Cost struct {
	What     string  `json:"what"`
	Requests int     `json:"requests"`
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	USD      float64 `json:"usd"`
}

// BlockOptions choose what Inspector.Block reads and reports.
type BlockOptions struct {
	// Labels is the maximum number of labels in the report. 0: 10.
	Labels int
	// Measure sends 32 reads to measure the bucket.
	Measure bool
	// Check reads all series entries and reports whether the block is irregular.
	Check bool
}

const (
	defaultLabels = 10
	// probes is the number of reads that a cost.Meter needs, and probeBytes their size.
	probes     = 32
	probeBytes = 256 << 10
	// maxValueText bounds a label value of a report in bytes.
	maxValueText = 128
)

// missing returns which files of the block of e the listing lacks.
func missing(e catalog.Entry) (out []string) {
	if !e.Files.Index {
		out = append(out, "no index in the listing")
	}
	if stated := len(e.Block.ChunkFiles); e.Files.Chunks < stated || e.Files.Chunks == 0 {
		out = append(out, strconv.Itoa(e.Files.Chunks)+
			" chunk files in the listing, meta.json states "+strconv.Itoa(stated))
	}
	return out
}

// Block reads the header of a block, and reports what the block consists of and costs. e must have
// a Block and its Files.
func (i *Inspector) Block(
	ctx context.Context, e catalog.Entry, bucket string, o BlockOptions,
) (*BlockReport, error) {
	b := e.Block
	r := &BlockReport{
		Bucket: bucket, Block: b.ID.String(), State: e.State,
		Labels: map[string]string{}, Resolution: Resolution(b.Resolution),
		Range: newTimeRange(b.MinTime, b.MaxTime), Level: b.Level, Sources: len(b.Sources),
		Series: b.NumSeries, Chunks: b.NumChunks, Marks: []Marked{},
		ChunkFiles: ChunkFiles{Files: len(b.ChunkFiles)},
	}
	b.Labels.Range(func(l labels.Label) { r.Labels[l.Name] = l.Value })
	if !e.Uploaded.IsZero() {
		at := e.Uploaded.UTC()
		r.Uploaded = &at
	}
	marks := BucketReport{Marks: r.Marks}
	marks.addMarks(e)
	r.Marks = marks.Marks
	for _, f := range b.ChunkFiles {
		r.ChunkFiles.Bytes += f.Size
		r.ChunkFiles.Pages += pages(f.Size, i.opts.ChunkPageBytes)
	}

	r.Incomplete = strings.Join(missing(e), "; ")
	if !e.Files.Index {
		return r, nil
	}
	src := block.Source(b)
	src.Unsized = false // there is nothing to measure with
	requests, bytes := i.bucket.requests.Load(), i.bucket.bytes.Load()
	h, release, err := i.headers.Acquire(ctx, src)
	if err != nil {
		return nil, err
	}
	defer release()
	r.Header = Header{
		Bytes: h.FileBytes(), OpenBytes: h.OpenBytes(),
		BuildRequests: i.bucket.requests.Load() - requests,
		BuildBytes:    i.bucket.bytes.Load() - bytes,
	}
	r.Index = i.index(h)
	if err := r.addLabels(ctx, h, cmp.Or(o.Labels, defaultLabels)); err != nil {
		return nil, err
	}
	if o.Check {
		if r.Shape, err = i.check(ctx, b); err != nil {
			return nil, err
		}
	}
	if o.Measure {
		files := b.ChunkFiles
		if r.Incomplete != "" {
			files = nil // which of them are missing is not known
		}
		if r.Prices.Measured, err = i.probe(ctx, b.ID, files, h.IndexSize()); err != nil {
			return nil, err
		}
	}
	i.price(r, b, h)
	return r, nil
}

func pages(bytes, page int64) int64 { return (bytes + page - 1) / page }

// index returns what the index consists of.
func (i *Inspector) index(h *indexheader.Header) Index {
	toc, size := h.TOC(), h.IndexSize()
	section := func(off int64) int64 {
		if off == 0 {
			return 0
		}
		return toc.SectionEnd(off, size) - off
	}
	return Index{
		Version: h.IndexVersion(), Bytes: size,
		Pages: pages(size, i.opts.IndexPageBytes), Symbols: h.SymbolCount(),
		SymbolBytes: section(toc.Symbols), SeriesBytes: section(toc.Series),
		PostingBytes: section(toc.Postings),
		TableBytes: section(toc.PostingsTable) + section(toc.LabelIndices) +
			section(toc.LabelIndicesTable),
	}
}

// addLabels adds the n largest labels by the bytes of their posting lists.
func (r *BlockReport) addLabels(ctx context.Context, h *indexheader.Header, n int) error {
	names := h.LabelNames()
	r.LabelNames = len(names)
	all := make([]Label, 0, len(names))
	for _, name := range names {
		l := Label{Name: shortened(name), Values: h.ValueCount(name)}
		var top []byte
		err := h.Values(ctx, name, "",
			func(value []byte, list indexheader.List) (bool, error) {
				series := tsdbfmt.MaxPostingsCount(list.End - list.Off)
				l.Series += series
				l.Bytes += list.End - list.Off
				if series > l.TopSeries {
					l.TopSeries, l.top, top = series, list, append(top[:0], value...)
				}
				return true, nil
			})
		if err != nil {
			return err
		}
		l.Top = shortened(string(top))
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Label) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	r.Largest = all[:min(n, len(all))]
	return nil
}

// shortened returns a text of at most maxValueText bytes.
func shortened(s string) string {
	if len(s) <= maxValueText {
		return s
	}
	return s[:maxValueText-3] + "..."
}

// probe measures the bucket with reads of the block's largest file, four at a time. measured is
// false if the file is too short for that.
func (i *Inspector) probe(
	ctx context.Context, id ulid.ULID, chunks []catalog.ChunkFile, indexSize int64,
) (measured bool, err error) {
	name, size := id.String()+"/index", indexSize
	for _, f := range chunks {
		if f.Size > size {
			name, size = id.String()+"/chunks/"+f.Name, f.Size
		}
	}
	length := min(size, probeBytes)
	if length == 0 {
		return false, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for n := range int64(probes) {
		g.Go(panics.Contained(func() error {
			off := (size - length) * n / probes
			return i.bucket.read(ctx, name, off, make([]byte, length))
		}))
	}
	return true, g.Wait()
}

// price adds what reading the block costs.
func (i *Inspector) price(r *BlockReport, b *catalog.Block, h *indexheader.Header) {
	m := i.bucket.meter.Model()
	r.Prices = Prices{
		Measured:          r.Prices.Measured,
		FirstByteSeconds:  m.FirstByte.Seconds(),
		BytesPerSecond:    m.BytesPerSecond,
		PerRequestSeconds: m.PerRequest.Seconds(),
		USDPerRequest:     cost.USDPerRequest,
	}
	add := func(what string, trips, requests int, longest, total int64) {
		r.Costs = append(r.Costs, Cost{
			What: what, Requests: requests, Bytes: total,
			Seconds: significant(m.Reads(trips, requests, longest, total).Seconds()),
			USD:     significant(float64(requests) * cost.USDPerRequest),
		})
	}
	read := func(what string, page int64, files ...cost.Extent) {
		var reads []cost.Extent
		for _, f := range files {
			if f.Len() > 0 {
				reads = append(reads, m.Plan([]cost.Extent{f}, page)...)
			}
		}
		longest, total := int64(0), int64(0)
		for _, f := range reads {
			longest, total = max(longest, f.Len()), total+f.Len()
		}
		if total > 0 {
			add(what, 1, len(reads), longest, total)
		}
	}
	size := h.IndexSize()
	requests := int(r.Header.BuildRequests)
	add("build the index header", min(2, requests), requests, r.Header.BuildBytes,
		r.Header.BuildBytes)
	if len(r.Largest) > 0 {
		l := r.Largest[0]
		read(fmt.Sprintf("posting list %s=%q", l.Name, l.Top), i.opts.IndexPageBytes,
			i.whole(l.top.Off, l.top.End, size))
	}
	toc := h.TOC()
	if toc.Series > 0 {
		read("all series of the index", i.opts.IndexPageBytes,
			i.whole(toc.Series, toc.SectionEnd(toc.Series, size), size))
	}
	var chunks []cost.Extent
	for _, f := range b.ChunkFiles {
		chunks = append(chunks, cost.Extent{End: f.Size})
	}
	read("all chunks", i.opts.ChunkPageBytes, chunks...)
}

// whole returns the range in whole pages of an index.
func (i *Inspector) whole(off, end, size int64) cost.Extent {
	page := i.opts.IndexPageBytes
	return cost.Extent{Off: off / page * page, End: min((end+page-1)/page*page, size)}
}

// significant rounds to three digits, so that reports are readable.
func significant(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
