package block

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/postings"
)

// forecastBytes is the memory of a chunk reference, or of a posting, while its read is forecast.
const forecastBytes = 32

// ForecastPostings says which posting lists Plan would read for these matchers if no postings are
// kept. It reads the header and nothing of the bucket, unless the header must be built.
func (b *Block) ForecastPostings(
	ctx context.Context, matchers []*labels.Matcher,
) (e pagecache.Estimate, s postings.Stats, err error) {
	h, release, err := b.Header(ctx)
	if err != nil {
		return e, s, err
	}
	defer release()
	set := postings.NewMatcherSet(matchers)
	index := b.deps.Index.Object(b.meta.Number, b.meta.ID, b.meta.Content, h.IndexSize())
	s, err = b.finder.Reads(ctx, postings.Query{
		Matchers: set, Mode: b.mode(&Plan{irregular: b.irregularBy(h), key: set.Hash()}),
		Header: h, Index: index, SeriesBytes: b.meanEntry(h),
	}, func(spans []pagecache.Span) error {
		one, err := b.deps.Index.Estimate(index, spans)
		e.Add(one)
		return err
	})
	if err != nil {
		return e, s, b.wrap(err)
	}
	return e, s, nil
}

// ForecastSeries says which series entries a stream of the plan would read with this RunBytes. It
// reads nothing. Entries that are longer than expected cost more. Of a kept
// set only the bytes are known, and nothing is read.
func (p *Plan) ForecastSeries(runBytes int64) (e pagecache.Estimate, err error) {
	if p.set != nil {
		for _, seg := range p.set.segments {
			e.Bytes += seg.seriesBytes
		}
		e.Cold = pagecache.Reads{Bytes: e.Bytes, Longest: e.Bytes}
		if e.Bytes > 0 {
			e.Cold.Requests = 1
		}
		return e, nil
	}
	s := p.decode(context.Background(), StreamOptions{RunBytes: runBytes, OnePass: true})
	defer s.Close()
	done := int64(0) // end of the last page of the run before, which is read once
	for version := p.header.IndexVersion(); len(s.refs) > 0; {
		_, spans := s.takeRun(version)
		for len(spans) > 0 && spans[0].End <= done {
			spans = spans[1:]
		}
		if len(spans) > 0 {
			spans[0].Off = max(spans[0].Off, done)
			done = roundUp(spans[len(spans)-1].End, s.indexPage)
		}
		one, err := p.block.deps.Index.Estimate(p.index, spans)
		if err != nil {
			return e, p.block.wrap(err)
		}
		e.Add(one)
	}
	return e, nil
}

// roundUp returns the first multiple of unit from n on.
func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// ChunksForecast is what a request would read of a block's chunk files.
type ChunksForecast struct {
	pagecache.Estimate
	// Series is the number of series in the answer, Chunks that of their chunks.
	Series, Chunks int64
	// Exact says that the chunk references are known. Otherwise the chunks are assumed to lie in
	// their files in proportion to where their series lie in the index, and pending matchers are
	// assumed to match.
	Exact bool
}

// ForecastChunks says which chunks of [minT, maxT] a request would read, if it reads them in
// windows that end at these fractions of the answer. Chunk references are known if a kept set has
// them. They are also known if exact is true: then the series entries are decoded, from the pages
// that ForecastSeries found in memory. Otherwise nothing is read.
func (p *Plan) ForecastChunks(
	ctx context.Context, o StreamOptions, windows []float64, exact bool,
) (f ChunksForecast, err error) {
	if p.set != nil || exact {
		return p.knownChunks(ctx, o, windows)
	}
	b := p.block
	g := b.chunkGuess(o.MinTime, o.MaxTime)
	f.Series, f.Chunks = int64(len(p.refs)), int64(len(p.refs))*g.chunks
	if o.SkipChunks || g.total <= 0 {
		return f, nil
	}
	err = reserverOr(o.Reserver).Reserve(forecastBytes * int64(len(p.refs)))
	if err != nil {
		return f, b.wrap(err)
	}
	version, toc := p.header.IndexVersion(), p.header.TOC()
	from := toc.Series
	length := float64(max(toc.SectionEnd(from, p.index.Size)-from, 1))
	for lo, w := 0, 0; w < len(windows); w++ {
		hi := min(int(math.Ceil(windows[w]*float64(len(p.refs)))), len(p.refs))
		r := fileSpans{block: b}
		for _, ref := range p.refs[lo:max(lo, hi)] {
			at := float64(tsdbfmt.SeriesOffset(version, ref)-from) / length
			r.add(int64(at*g.total+g.from), int64(at*g.total+g.end))
		}
		if err := r.estimate(&f.Estimate); err != nil {
			return f, b.wrap(err)
		}
		lo = max(lo, hi)
	}
	return f, nil
}

// chunkGuess says where the chunks of a series probably lie, relative to the first chunk of the
// block and in proportion to its entry. total are the bytes of all chunks.
type chunkGuess struct {
	total, from, end float64
	chunks           int64 // of a series, in the time range
}

func (b *Block) chunkGuess(minT, maxT int64) chunkGuess {
	m := b.meta
	g := chunkGuess{total: float64(b.ChunkFileBytes())}
	var bytes int64
	g.chunks, bytes = b.ChunksPerSeries(minT, maxT)
	if m.NumSeries == 0 || m.NumChunks == 0 {
		g.end = float64(bytes)
		return g
	}
	each := g.total / float64(m.NumChunks)
	perSeries := float64(m.NumChunks) / float64(m.NumSeries)
	length := max(float64(m.MaxTime)-float64(m.MinTime), 1)
	first := max(float64(minT)-float64(m.MinTime), 0) / length * perSeries
	// Chunks end at times of their own: the one at the end of the range is needed in part.
	last := min((float64(maxT)-float64(m.MinTime))/length, 1) * perSeries
	g.from, g.end = math.Floor(first)*each, min(math.Floor(last)+1, perSeries)*each
	g.chunks = int64(math.Ceil(max(g.end-g.from, 0) / max(each, 1)))
	return g
}

// fileSpans collects ranges of the block's chunk files as if they were one file.
type fileSpans struct {
	block *Block
	spans []pagecache.Span // ascending
}

func (r *fileSpans) add(off, end int64) {
	if end = max(end, off+1); len(r.spans) > 0 {
		off = max(off, r.spans[len(r.spans)-1].Off)
	}
	r.spans = appendSpan(r.spans, off, end)
}

// estimate adds what reading the ranges takes to e. Files of unknown size are left out.
func (r *fileSpans) estimate(e *pagecache.Estimate) error {
	start := int64(0)
	var spans []pagecache.Span
	for n, file := range r.block.meta.ChunkFiles {
		spans = spans[:0]
		for _, s := range r.spans {
			off, end := max(s.Off-start, 0), min(s.End-start, file.Size)
			if off < end {
				spans = append(spans, pagecache.Span{Off: off, End: end})
			}
		}
		start += file.Size
		if err := r.block.estimateFile(n, spans, e); err != nil {
			return err
		}
	}
	return nil
}

// estimateFile adds what reading ranges of chunk file number n takes to e.
func (b *Block) estimateFile(n int, spans []pagecache.Span, e *pagecache.Estimate) error {
	obj, ok := b.knownChunkObject(n)
	if !ok || len(spans) == 0 {
		return nil
	}
	one, err := b.deps.Chunks.Estimate(obj, spans)
	if err != nil {
		return err
	}
	e.Add(one)
	return nil
}

// knownChunks is ForecastChunks for chunk references that are in memory.
func (p *Plan) knownChunks(
	ctx context.Context, o StreamOptions, windows []float64,
) (f ChunksForecast, err error) {
	s := p.Stream(ctx, o)
	defer s.Close()
	f.Exact = true
	var refs []uint64
	var bounds []uint32
	for {
		seg, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return f, err
		}
		f.Series += int64(seg.Len())
		metas := seg.Chunks()
		if err := reserverOr(o.Reserver).Reserve(forecastBytes * int64(metas.Len())); err != nil {
			return f, p.block.wrap(err)
		}
		for i := range seg.Len() {
			lo, hi := seg.ChunkRange(i)
			refs = append(refs, metas.Ref[lo:hi]...)
			bounds = append(bounds, metas.Bound[lo:hi]...)
		}
	}
	f.Chunks = int64(len(refs))
	for lo, w := 0, 0; w < len(windows); w++ {
		hi := min(int(math.Ceil(windows[w]*float64(len(refs)))), len(refs))
		if err := p.block.estimateRefs(refs[lo:hi], bounds[lo:hi], &f.Estimate); err != nil {
			return f, p.block.wrap(err)
		}
		lo = hi
	}
	return f, nil
}

// estimateRefs adds what reading chunk records takes to e. It does not keep refs.
func (b *Block) estimateRefs(refs []uint64, bounds []uint32, e *pagecache.Estimate) error {
	order := make([]int, len(refs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int { return cmp.Compare(refs[x], refs[y]) })
	var spans []pagecache.Span
	for at := 0; at < len(order); {
		file := refs[order[at]] >> 32
		spans = spans[:0]
		obj, _ := b.knownChunkObject(int(file))
		for ; at < len(order) && refs[order[at]]>>32 == file; at++ {
			i := order[at]
			off := fileOffset(refs[i])
			if end := min(off+b.recordBound(bounds[i]), obj.Size); off < end {
				spans = appendSpan(spans, off, end)
			}
		}
		if err := b.estimateFile(int(file), spans, e); err != nil {
			return err
		}
	}
	return nil
}
