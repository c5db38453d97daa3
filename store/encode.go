package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// encodingAggr is the encoding of downsampled chunks, which contain up to five chunks.
const encodingAggr = 0xff

// encoder turns the chunk records of a window into chunks for the client. It verifies records,
// re-encodes chunks whose encoding the StoreAPI does not know, sorts them in the order of the
// StoreAPI's contract, and removes duplicates. It reuses its buffers from series to series.
type encoder struct {
	sources []*source
	aggrs   [storepb.Aggr_COUNTER + 1]bool
	onError func(err error) // counts a record that is damaged or has an unknown encoding
	chunks  []storepb.WireChunk
	parts   []storepb.WirePart
	ends    []int  // by chunk: where its parts end
	arena   []byte // re-encoded chunks of the current series

	// Scratch memory of ordered: the order of chunks, and the chunks it keeps.
	order []int32
	kept  []storepb.WireChunk
}

func newEncoder(sources []*source, aggrs []storepb.Aggr, onError func(error)) *encoder {
	e := &encoder{sources: sources, onError: onError}
	for _, a := range aggrs {
		if a >= 0 && int(a) < len(e.aggrs) {
			e.aggrs[a] = true
		}
	}
	return e
}

// series returns the chunks of a series of w, valid until the next call.
func (e *encoder) series(
	ctx context.Context, w *window, s *windowSeries, chunks []windowChunk,
) ([]storepb.WireChunk, error) {
	e.chunks, e.parts, e.ends, e.arena = e.chunks[:0], e.parts[:0], e.ends[:0], e.arena[:0]
	for i := range chunks {
		c := &chunks[i]
		batch := &w.batches[c.source]
		if err := e.add(ctx, int(c.source), batch.Ref[c.index], batch.Record[c.index]); err != nil {
			return nil, err
		}
		e.ends = append(e.ends, len(e.parts))
		e.chunks = append(e.chunks, storepb.WireChunk{MinTime: c.minTime, MaxTime: c.maxTime})
	}
	lo, whole := 0, true
	for i, hi := range e.ends {
		e.chunks[i].Parts = e.parts[lo:hi:hi]
		whole = whole && lo < hi
		lo = hi
	}
	if s.sorted && whole {
		return e.chunks, nil
	}
	return e.ordered(s.firstPiece), nil
}

// add appends the parts of the chunk record rec, which was read from ref of a source.
func (e *encoder) add(ctx context.Context, source int, ref uint64, rec []byte) error {
	src := e.sources[source]
	enc, data, err := tsdbfmt.ChunkRecord(rec)
	if err != nil {
		// The record may have been damaged in transit or in a cache. Read it once more, from the
		// bucket.
		e.onError(e.recordError(src, ref, err))
		if rec, err = src.chunks.Reread(ctx, ref, len(rec)); err != nil {
			return receiveError(src, err)
		}
		if enc, data, err = tsdbfmt.ChunkRecord(rec); err != nil {
			return e.recordError(src, ref, err)
		}
	}
	if enc != encodingAggr {
		return e.addPart(src, ref, storepb.Aggr_RAW, enc, data)
	}
	subs, err := tsdbfmt.AggrChunk(data)
	if err != nil {
		return e.recordError(src, ref, err)
	}
	for i, aggr := range aggregates {
		if !e.aggrs[aggr] {
			continue
		}
		if !subs[i].Present {
			return receiveError(src, fmt.Errorf("aggregate %s does not exist", aggregateNames[i]))
		}
		if err := e.addPart(src, ref, aggr, subs[i].Enc, subs[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// aggregates are the aggregates of a downsampled chunk, in its order.
var aggregates = [...]storepb.Aggr{
	storepb.Aggr_COUNT, storepb.Aggr_SUM, storepb.Aggr_MIN, storepb.Aggr_MAX, storepb.Aggr_COUNTER,
}

// aggregateNames are the names of aggregates in errors.
var aggregateNames = [...]string{"count", "sum", "min", "max", "counter"}

// addPart appends a part. It re-encodes data whose encoding the StoreAPI does not know. The
// StoreAPI numbers encodings from 0, the TSDB from 1.
func (e *encoder) addPart(src *source, ref uint64, aggr storepb.Aggr, enc byte, data []byte) error {
	wireEnc, reencode, err := tsdbfmt.WireEncoding(enc)
	if err != nil {
		e.onError(e.recordError(src, ref, err))
		return e.recordError(src, ref, err)
	}
	if reencode {
		from := len(e.arena)
		if _, e.arena, err = tsdbfmt.Reencode(e.arena, enc, data); err != nil {
			e.onError(e.recordError(src, ref, err))
			return e.recordError(src, ref, err)
		}
		data = e.arena[from:len(e.arena):len(e.arena)]
	}
	e.parts = append(e.parts, storepb.WirePart{
		Data: data, Hash: xxhash.Sum64(data), Type: wireEnc - 1, Aggr: byte(aggr),
	})
	return nil
}

func (e *encoder) recordError(src *source, ref uint64, err error) error {
	return receiveError(src, fmt.Errorf("chunk file %d: chunk record at offset %d: %w",
		ref>>32+1, ref&(1<<32-1), err))
}

// ordered sorts the chunks of a series by compareChunks and drops duplicates, because the series
// may be joined from several, of one or more blocks. Chunks of different resolutions may be
// duplicates: a 5m and a 1h block have the same chunk if an hour has one sample. A chunk without
// data has none of the requested aggregates: it is dropped if any other chunk has data. If none
// has, ordered returns the first firstPiece chunks, those of the first joined series.
func (e *encoder) ordered(firstPiece int) []storepb.WireChunk {
	if len(e.parts) == 0 {
		return e.chunks[:firstPiece]
	}
	out := e.chunks[:0]
	for _, c := range e.chunks {
		if len(c.Parts) > 0 {
			out = append(out, c)
		}
	}
	e.order, e.kept = e.order[:0], e.kept[:0]
	for i := range out {
		e.order = append(e.order, int32(i))
	}
	slices.SortFunc(e.order, func(x, y int32) int { return compareChunks(&out[x], &out[y]) })
	for _, i := range e.order {
		if n := len(e.kept); n == 0 || compareChunks(&e.kept[n-1], &out[i]) != 0 {
			e.kept = append(e.kept, out[i])
		}
	}
	return e.kept
}

// compareChunks compares chunks in the order of the StoreAPI's contract: by minimum time, by
// maximum time, then by the parts raw, count, sum, min, max and counter. For each part, a chunk
// that has it comes first; then the type decides, ascending; then the data, descending.
func compareChunks(a, b *storepb.WireChunk) int {
	if a.MinTime != b.MinTime {
		return cmp.Compare(a.MinTime, b.MinTime)
	}
	if a.MaxTime != b.MaxTime {
		return cmp.Compare(a.MaxTime, b.MaxTime)
	}
	i, j := 0, 0
	for i < len(a.Parts) && j < len(b.Parts) {
		p, q := &a.Parts[i], &b.Parts[j]
		switch {
		case p.Aggr < q.Aggr:
			return -1
		case p.Aggr > q.Aggr:
			return 1
		case p.Type != q.Type:
			return int(p.Type) - int(q.Type)
		}
		if c := bytes.Compare(q.Data, p.Data); c != 0 {
			return c
		}
		i++
		j++
	}
	return (len(b.Parts) - j) - (len(a.Parts) - i)
}

// noteBadChunk counts and logs a chunk record that is damaged or has an unknown encoding.
func (s *Server) noteBadChunk(err error) {
	var unknown *tsdbfmt.UnknownEncodingError
	switch {
	case errors.As(err, &unknown):
		s.metrics.unknownEncodings.WithLabelValues(fmt.Sprint(unknown.Enc)).Inc()
	default:
		s.metrics.corruptRecords.Inc()
	}
	s.log.Warn("bad chunk record", "err", err)
}
