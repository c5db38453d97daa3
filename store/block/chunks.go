package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
)

// guessedRecord is how long a chunk record is expected to be at most, where neither a reference nor meta.json bounds it. A longer one
// costs a follow-up read.
const guessedRecord = 1 << 10

// maxGuess bounds what is read of a record because of where the next one begins, where meta.json does not say how large records are: a
// block may have holes.
const maxGuess = 64 << 10

// maxRecordHead is the longest a record's length prefix can be.
const maxRecordHead = 10

// ChunkReader reads the chunk records of one block, a batch at a time. It is used by one goroutine and reuses its buffers.
type ChunkReader struct {
	block *Block
	acct  *pagecache.Account
	order []int32
	stats ChunkStats
}

// ChunkStats counts what a reader has read.
type ChunkStats struct {
	Records     int64
	RecordBytes int64
	FollowUps   int64 // records that turned out longer than read at first
}

// Add adds o to s.
func (s *ChunkStats) Add(o ChunkStats) {
	s.Records += o.Records
	s.RecordBytes += o.RecordBytes
	s.FollowUps += o.FollowUps
}

// ChunkReader returns a reader whose reads are counted, and may be refused, by acct.
func (b *Block) ChunkReader(acct *pagecache.Account) *ChunkReader {
	return &ChunkReader{block: b, acct: acct}
}

// Block returns the block that is read.
func (r *ChunkReader) Block() *Block { return r.block }

// Stats returns what has been read so far.
func (r *ChunkReader) Stats() ChunkStats { return r.stats }

// Batch is a number of chunk records asked for together.
type Batch struct {
	// Ref and Bound are the references and length bounds, in any order; a bound of 0 is unknown.
	Ref   []uint64
	Bound []uint32
	// Record receives the records, by index: length prefix, encoding, data and checksum, NOT verified. They alias pages, which live as
	// long as the records do.
	Record [][]byte
	// Pinned is the number of page bytes that the records keep alive.
	Pinned int64
}

// Read fills in b.Record. Reads are grouped by chunk file; records whose bound was too small are read again in one follow-up a file.
func (r *ChunkReader) Read(ctx context.Context, b *Batch) error {
	b.Pinned = 0
	b.Record = slices.Grow(b.Record[:0], len(b.Ref))[:len(b.Ref)]
	r.order = r.order[:0]
	for i := range b.Ref {
		r.order = append(r.order, int32(i))
	}
	if !slices.IsSorted(b.Ref) {
		slices.SortFunc(r.order, func(x, y int32) int { return cmp.Compare(b.Ref[x], b.Ref[y]) })
	}
	var files [][]int32
	for order := r.order; len(order) > 0; {
		file := b.Ref[order[0]] >> 32
		n := 1
		for n < len(order) && b.Ref[order[n]]>>32 == file {
			n++
		}
		files = append(files, order[:n])
		order = order[n:]
	}
	reads := make([]fileRead, len(files))
	if len(files) == 1 {
		if err := reads[0].read(ctx, r, b, files[0]); err != nil {
			return err
		}
	} else {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for i := range files {
			g.Go(panics.Contained(func() error { return reads[i].read(ctx, r, b, files[i]) }))
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	for i := range reads {
		b.Pinned += reads[i].pinned
		r.stats.FollowUps += reads[i].followUps
		r.stats.RecordBytes += reads[i].recordBytes
	}
	r.stats.Records += int64(len(b.Ref))
	return nil
}

// fileRead is the part of a batch that lies in one chunk file.
type fileRead struct {
	pinned, followUps, recordBytes int64
}

func (f *fileRead) read(ctx context.Context, r *ChunkReader, b *Batch, order []int32) error {
	err := f.readFile(ctx, r, b, order)
	if err != nil && ctx.Err() == nil {
		r.block.forgetFiles()
	}
	return err
}

func (f *fileRead) readFile(ctx context.Context, r *ChunkReader, b *Batch, order []int32) error {
	blk := r.block
	obj, err := blk.chunkObject(ctx, int(b.Ref[order[0]]>>32))
	if err != nil {
		return blk.wrap(err)
	}
	spans := make([]pagecache.Span, 0, len(order))
	for _, i := range order {
		off := fileOffset(b.Ref[i])
		if off >= obj.Size {
			return recordError(blk, obj, off, fmt.Errorf("%w: the file ends at %d", tsdbfmt.ErrCorrupt, obj.Size))
		}
		spans = appendSpan(spans, off, min(off+blk.recordBound(b.Bound[i]), obj.Size))
	}
	pages, err := blk.deps.Chunks.Fetch(ctx, obj, spans, r.acct)
	if err != nil {
		return blk.wrap(err)
	}
	f.pinned = pages.PinnedBytes()
	cursor := pages.Cursor()

	var arena []byte
	var tails []int32
	spans = spans[:0]
	for _, i := range order {
		off := fileOffset(b.Ref[i])
		n := min(blk.recordBound(b.Bound[i]), obj.Size-off)
		rec, grown, ok := cursor.Bytes(off, int(n), arena)
		arena = grown
		if !ok {
			return recordError(blk, obj, off, errors.New("pages do not cover it"))
		}
		size, err := tsdbfmt.ChunkRecordSize(rec)
		if err != nil || off+int64(size) > obj.Size {
			// Either the page is damaged or the block is: one more read tells.
			if rec, err = blk.rereadRecord(ctx, obj, off, int(n), r.acct); err != nil {
				return err
			}
			b.Record[i] = rec
			f.recordBytes += int64(len(rec))
			continue
		}
		f.recordBytes += int64(size)
		if size > len(rec) {
			tails = append(tails, i)
			spans = appendSpan(spans, off, off+int64(size))
			continue
		}
		b.Record[i] = rec[:size:size]
	}
	if len(tails) == 0 {
		return nil
	}
	f.followUps += int64(len(tails))
	if pages, err = blk.deps.Chunks.Fetch(ctx, obj, spans, r.acct); err != nil {
		return blk.wrap(err)
	}
	f.pinned += pages.PinnedBytes()
	for _, i := range tails {
		off := fileOffset(b.Ref[i])
		head, grown, ok := pages.Bytes(off, int(min(maxRecordHead, obj.Size-off)), arena)
		arena = grown
		size, err := tsdbfmt.ChunkRecordSize(head)
		if ok && err == nil {
			b.Record[i], arena, ok = pages.Bytes(off, size, arena)
		}
		if !ok || err != nil {
			// Its length is not what the first read said: one of the two was damaged.
			if b.Record[i], err = blk.rereadRecord(ctx, obj, off, size, r.acct); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reread reads the chunk record ref again from the bucket, past the cache: what has to be done, once, when a record of size bytes does not
// verify. The record returned has been verified.
func (r *ChunkReader) Reread(ctx context.Context, ref uint64, size int) ([]byte, error) {
	obj, err := r.block.chunkObject(ctx, int(ref>>32))
	if err != nil {
		return nil, r.block.wrap(err)
	}
	rec, err := r.block.rereadRecord(ctx, obj, fileOffset(ref), size, r.acct)
	if err != nil && ctx.Err() == nil {
		r.block.forgetFiles()
	}
	return rec, err
}

// rereadRecord reads a record that did not verify once more, past the cache, and counts how that ended. guess is its length as far as that
// is known.
func (b *Block) rereadRecord(ctx context.Context, obj pagecache.Object, off int64, guess int, acct *pagecache.Account) ([]byte, error) {
	rec, err := b.readRecord(ctx, obj, off, guess, acct)
	switch {
	case err == nil:
		b.deps.Corruptions.Mended(telemetry.CorruptChunk, 1)
	case corrupt(err):
		b.deps.Corruptions.Failed(telemetry.CorruptChunk)
	}
	return rec, err
}

func (b *Block) readRecord(ctx context.Context, obj pagecache.Object, off int64, size int, acct *pagecache.Account) ([]byte, error) {
	// A damaged length says anything; one that is right spares the second round.
	size = max(min(size, maxGuess), int(b.recordBound(0)))
	for range 2 {
		end := min(off+int64(size), obj.Size)
		pages, err := b.deps.Chunks.Refetch(ctx, obj, pagecache.Span{Off: off, End: end}, acct)
		if err != nil {
			return nil, b.wrap(err)
		}
		rec, _, ok := pages.Bytes(off, int(end-off), nil)
		if !ok {
			return nil, recordError(b, obj, off, errors.New("pages do not cover it"))
		}
		if size, err = tsdbfmt.ChunkRecordSize(rec); err != nil {
			return nil, recordError(b, obj, off, err)
		}
		if off+int64(size) > obj.Size {
			return nil, recordError(b, obj, off, fmt.Errorf("%w: record of %d bytes, the file ends at %d", tsdbfmt.ErrCorrupt, size, obj.Size))
		}
		if size <= len(rec) {
			if _, _, err := tsdbfmt.ChunkRecord(rec[:size]); err != nil {
				return nil, recordError(b, obj, off, err)
			}
			return rec[:size], nil
		}
	}
	return nil, recordError(b, obj, off, fmt.Errorf("%w: its length changed between two reads", tsdbfmt.ErrCorrupt))
}

func recordError(b *Block, obj pagecache.Object, off int64, err error) error {
	return b.wrap(fmt.Errorf("object %s: chunk record at offset %d: %w", obj.Name, off, err))
}

func fileOffset(ref uint64) int64 { return int64(ref & (1<<32 - 1)) }

// recordBound returns how many bytes to read of a record with the given bound.
func (b *Block) recordBound(bound uint32) int64 {
	n, most := int64(bound), b.meta.ChunkMaxSize
	switch {
	case n > 0 && most > 0:
		n = min(n, most)
	case n == 0 && most > 0:
		n = min(most, 4*guessedRecord)
	case n == 0:
		n = guessedRecord
	default:
		n = min(n, maxGuess)
	}
	return max(n, maxRecordHead)
}

// RecordBytes estimates how many bytes of chunk file a record with the given bound takes.
func (b *Block) RecordBytes(bound uint32) int64 { return b.recordBound(bound) }

// appendSpan appends [off, end) to spans, which are sorted by Off, or extends the last of them.
func appendSpan(spans []pagecache.Span, off, end int64) []pagecache.Span {
	if n := len(spans) - 1; n >= 0 && off <= spans[n].End {
		spans[n].End = max(spans[n].End, end)
		return spans
	}
	return append(spans, pagecache.Span{Off: off, End: end})
}
