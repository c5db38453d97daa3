package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
)

// defaultChunkPage is the page size of chunk files if Deps.Chunks does not tell.
const defaultChunkPage = 8 << 10

// guessedRecord is how much is read of a chunk record that neither a reference nor meta.json
// bounds. A longer record costs a follow-up read.
const guessedRecord = 1 << 10

// maxGuess bounds how much is read of a record up to the next one, if meta.json does not tell the
// size of records: a block may have holes between them.
const maxGuess = 64 << 10

// maxRecordHead is the largest size of a record's length prefix.
const maxRecordHead = 10

// ChunkReader reads the chunk records of one block in batches. It is safe for concurrent use, with
// different batches.
type ChunkReader struct {
	block    *Block
	acct     *pagecache.Account
	reserver Reserver

	records, recordBytes, followUps atomic.Int64 // see ChunkStats
}

// ChunkStats counts what a reader has read.
type ChunkStats struct {
	Records     int64
	RecordBytes int64
	FollowUps   int64 // records that were longer than the first read
}

// Add adds o to s.
func (s *ChunkStats) Add(o ChunkStats) {
	s.Records += o.Records
	s.RecordBytes += o.RecordBytes
	s.FollowUps += o.FollowUps
}

// ChunkReader returns a reader. acct counts its reads and may refuse them. reserver reserves the
// bytes of records that are longer than their bound; nil: there is no limit.
func (b *Block) ChunkReader(acct *pagecache.Account, reserver Reserver) *ChunkReader {
	return &ChunkReader{block: b, acct: acct, reserver: reserverOr(reserver)}
}

// Block returns the block that is read.
func (r *ChunkReader) Block() *Block { return r.block }

// Stats returns what has been read so far.
func (r *ChunkReader) Stats() ChunkStats {
	return ChunkStats{
		Records: r.records.Load(), RecordBytes: r.recordBytes.Load(),
		FollowUps: r.followUps.Load(),
	}
}

// InMemory reports whether the cache has the pages at which records of b begin in memory. It looks
// at the first record, the last one and one between them.
func (r *ChunkReader) InMemory(b *Batch) bool {
	n := len(b.Ref)
	for _, i := range [...]int{0, n / 2, n - 1} {
		obj, ok := r.block.knownChunkObject(int(b.Ref[i] >> 32))
		if !ok || !r.block.deps.Chunks.InMemory(obj, fileOffset(b.Ref[i])) {
			return false
		}
	}
	return true
}

// Bytes returns about how many bytes of chunk files the records of b have.
func (r *ChunkReader) Bytes(b *Batch) (n int64) {
	for _, bound := range b.Bound {
		n += r.block.RecordBytes(bound)
	}
	return n
}

// Batch is a set of chunk records to read together.
type Batch struct {
	// Ref and Bound have the references and length bounds, in any order. A bound of 0 is unknown.
	Ref   []uint64
	Bound []uint32
	// Record receives the records by index: length prefix, encoding, data and checksum, NOT
	// verified. They alias pages and keep them in memory.
	Record [][]byte
	// Reserved is how many bytes the reader has reserved for the records beyond their bounds. The
	// caller releases them when it drops the records.
	Reserved int64
	// LastPart says that nothing is read after these records, and how long a read should be, so
	// that they arrive soon: see cost.Model.LastPart. 0: long reads are not split.
	LastPart int64

	order []int32 // the records in the order of the files; empty if they are in it
}

// at returns the index of record number k in the order of the files.
func (b *Batch) at(k int) int32 {
	if len(b.order) == 0 {
		return int32(k)
	}
	return b.order[k]
}

// Read fills in b.Record. It reads the chunk files concurrently, and makes one follow-up read a
// file for records that are longer than their bound.
func (r *ChunkReader) Read(ctx context.Context, b *Batch) error {
	b.Reserved = 0
	b.Record = slices.Grow(b.Record[:0], len(b.Ref))[:len(b.Ref)]
	if b.order = b.order[:0]; !slices.IsSorted(b.Ref) {
		for i := range b.Ref {
			b.order = append(b.order, int32(i))
		}
		slices.SortFunc(b.order, func(x, y int32) int { return cmp.Compare(b.Ref[x], b.Ref[y]) })
	}
	var reads []fileRead
	for lo := 0; lo < len(b.Ref); {
		file, hi := b.Ref[b.at(lo)]>>32, lo+1
		for hi < len(b.Ref) && b.Ref[b.at(hi)]>>32 == file {
			hi++
		}
		reads = append(reads, fileRead{lo: lo, hi: hi})
		lo = hi
	}
	if len(reads) == 1 {
		if err := reads[0].read(ctx, r, b); err != nil {
			return err
		}
	} else {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for i := range reads {
			g.Go(panics.Contained(func() error { return reads[i].read(ctx, r, b) }))
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	for i := range reads {
		b.Reserved += reads[i].reserved
		r.followUps.Add(reads[i].followUps)
		r.recordBytes.Add(reads[i].recordBytes)
	}
	r.records.Add(int64(len(b.Ref)))
	return nil
}

// fileRead is the part of a batch that lies in one chunk file.
type fileRead struct {
	lo, hi int // the records, as Batch.at counts them

	followUps, recordBytes, reserved int64
}

// tail is a record that is longer than the first read: its index in the batch, and its size.
type tail struct {
	index int32
	size  int
}

func (f *fileRead) reserve(r *ChunkReader, n int64) error {
	if err := r.reserver.Reserve(n); err != nil {
		return fmt.Errorf("%d more bytes of chunk records than expected: %w", n, err)
	}
	f.reserved += n
	return nil
}

func (f *fileRead) read(ctx context.Context, r *ChunkReader, b *Batch) error {
	blk := r.block
	obj, err := blk.chunkObject(ctx, int(b.Ref[b.at(f.lo)]>>32))
	if err != nil {
		return blk.wrap(err)
	}
	page := pageSizeOf(blk.deps.Chunks, defaultChunkPage)
	shift := bits.TrailingZeros64(uint64(page))
	copied := int64(0) // bytes of records on several pages, which are copied
	spans := make([]pagecache.Span, 0, f.hi-f.lo)
	for k := f.lo; k < f.hi; k++ {
		i := b.at(k)
		off := fileOffset(b.Ref[i])
		if off >= obj.Size {
			return recordError(
				blk, obj, off, fmt.Errorf("%w: the file ends at %d", tsdbfmt.ErrCorrupt, obj.Size),
			)
		}
		end := min(off+blk.recordBound(b.Bound[i]), obj.Size)
		if off>>shift != (end-1)>>shift {
			copied += end - off
		}
		spans = appendSpan(spans, off, end)
	}
	acct := r.acct
	if b.LastPart > 0 {
		acct = &pagecache.Account{Whole: r.acct, LastPart: b.LastPart}
		if r.acct != nil {
			acct.Spend = r.acct.Spend
		}
	}
	pages, err := blk.deps.Chunks.Fetch(ctx, obj, spans, acct)
	if err != nil {
		return blk.wrap(err)
	}
	cursor := pages.Cursor()

	// It must not grow: records that were cut from smaller arrays would keep them in memory.
	arena := make([]byte, 0, copied)
	var tails []tail
	copied = 0 // now of tails
	spans = spans[:0]
	next := 0
	for k := f.lo; k < f.hi; k++ {
		i := b.at(k)
		off := fileOffset(b.Ref[i])
		n := min(blk.recordBound(b.Bound[i]), obj.Size-off)
		rec, grown, ok := cursor.Bytes(off, int(n), arena)
		arena = grown
		if !ok {
			return recordError(blk, obj, off, errors.New("pages do not cover it"))
		}
		size, err := tsdbfmt.ChunkRecordSize(rec)
		if err == nil && size <= len(rec) {
			f.recordBytes += int64(size)
			b.Record[i] = rec[:size:size]
			continue
		}
		// INVARIANT: records do not overlap, therefore all of them are no longer than the file,
		// whatever lengths they claim.
		for next = max(next, k+1); next < f.hi && b.Ref[b.at(next)] == b.Ref[i]; {
			next++
		}
		end := obj.Size
		if next < f.hi {
			end = fileOffset(b.Ref[b.at(next)])
		}
		if err != nil || off+int64(size) > end {
			// The page is damaged, or the block is: another read will tell.
			if b.Record[i], err = f.reread(ctx, r, obj, off, end, int(n)); err != nil {
				return err
			}
			f.recordBytes += int64(len(b.Record[i]))
			continue
		}
		f.recordBytes += int64(size)
		if len(tails) == 0 || b.Ref[tails[len(tails)-1].index] != b.Ref[i] {
			spans = appendSpan(spans, off, off+int64(size))
			if off>>shift != (off+int64(size)-1)>>shift {
				copied += int64(size)
			}
		}
		tails = append(tails, tail{i, size})
	}
	if len(tails) == 0 {
		return nil
	}
	f.followUps += int64(len(tails))
	if err := f.reserve(r, pageBytes(spans, page)+copied); err != nil {
		return recordError(blk, obj, spans[0].Off, err)
	}
	if pages, err = blk.deps.Chunks.Fetch(ctx, obj, spans, r.acct); err != nil {
		return blk.wrap(err)
	}
	arena = make([]byte, 0, copied)
	for k, t := range tails {
		if k > 0 && b.Ref[tails[k-1].index] == b.Ref[t.index] {
			b.Record[t.index] = b.Record[tails[k-1].index]
			continue
		}
		off := fileOffset(b.Ref[t.index])
		rec, grown, ok := pages.Bytes(off, t.size, arena)
		if ok {
			if size, err := tsdbfmt.ChunkRecordSize(rec); err == nil && size == t.size {
				b.Record[t.index], arena = rec, grown
				continue
			}
		}
		// Its length differs from that of the first read: one of the two was damaged.
		if b.Record[t.index], err = f.reread(ctx, r, obj, off, obj.Size, t.size); err != nil {
			return err
		}
	}
	return nil
}

// reread is ChunkReader.reread for a record that the batch keeps. It copies the record, so that the
// pages around it are dropped.
func (f *fileRead) reread(
	ctx context.Context, r *ChunkReader, obj pagecache.Object, off, end int64, guess int,
) ([]byte, error) {
	rec, err := r.reread(ctx, obj, off, end, guess)
	if err == nil {
		err = f.reserve(r, int64(len(rec)))
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(rec), nil
}

// Reread reads the chunk record ref again from the bucket, past the cache, and verifies it. The
// caller calls it once for a record of size bytes that did not verify.
func (r *ChunkReader) Reread(ctx context.Context, ref uint64, size int) ([]byte, error) {
	obj, err := r.block.chunkObject(ctx, int(ref>>32))
	if err != nil {
		return nil, r.block.wrap(err)
	}
	return r.reread(ctx, obj, fileOffset(ref), obj.Size, size)
}

// reread reads a record that did not verify again, past the cache, and counts the result. guess is
// its length as far as it is known. It must not end after end.
func (r *ChunkReader) reread(
	ctx context.Context, obj pagecache.Object, off, end int64, guess int,
) ([]byte, error) {
	rec, err := r.readRecord(ctx, obj, off, end, guess)
	switch corruptions := r.block.deps.Corruptions; {
	case err == nil:
		corruptions.Mended(telemetry.CorruptChunk, 1)
	case corrupt(err):
		corruptions.Failed(telemetry.CorruptChunk)
	}
	return rec, err
}

func (r *ChunkReader) readRecord(
	ctx context.Context, obj pagecache.Object, off, end int64, size int,
) ([]byte, error) {
	b := r.block
	// A damaged length may be anything. A correct one saves the second round.
	size = max(min(size, maxGuess), int(b.recordBound(0)))
	for range 2 {
		span := pagecache.Span{Off: off, End: min(off+int64(size), obj.Size)}
		if size > maxGuess {
			// Released at once, because the caller encodes the record next and drops it.
			if err := r.reserver.Reserve(2 * int64(size)); err != nil {
				return nil, recordError(b, obj, off, err)
			}
			defer r.reserver.Release(2 * int64(size))
		}
		pages, err := b.deps.Chunks.Refetch(ctx, obj, span, r.acct)
		if err != nil {
			return nil, b.wrap(err)
		}
		rec, _, ok := pages.Bytes(off, int(span.End-off), nil)
		if !ok {
			return nil, recordError(b, obj, off, errors.New("pages do not cover it"))
		}
		if size, err = tsdbfmt.ChunkRecordSize(rec); err != nil {
			return nil, recordError(b, obj, off, err)
		}
		if off+int64(size) > obj.Size {
			return nil, recordError(b, obj, off, fmt.Errorf(
				"%w: record of %d bytes, the file ends at %d", tsdbfmt.ErrCorrupt, size, obj.Size,
			))
		}
		if off+int64(size) > end {
			return nil, recordError(b, obj, off, fmt.Errorf(
				"%w: record of %d bytes, the next one begins at %d", tsdbfmt.ErrCorrupt, size, end,
			))
		}
		if size <= len(rec) {
			if _, _, err := tsdbfmt.ChunkRecord(rec[:size]); err != nil {
				return nil, recordError(b, obj, off, err)
			}
			return rec[:size], nil
		}
	}
	return nil, recordError(
		b, obj, off, fmt.Errorf("%w: its length changed between two reads", tsdbfmt.ErrCorrupt),
	)
}

func recordError(b *Block, obj pagecache.Object, off int64, err error) error {
	return b.wrap(fmt.Errorf("object %s: chunk record at offset %d: %w", obj.Name, off, err))
}

func fileOffset(ref uint64) int64 { return int64(ref & (1<<32 - 1)) }

// recordBound returns how many bytes to read of a record with the given bound.
func (b *Block) recordBound(bound uint32) int64 {
	n, limit := int64(bound), b.meta.ChunkMaxSize
	switch {
	case n > 0 && limit > 0:
		n = min(n, limit)
	case n == 0 && limit > 0:
		n = min(limit, 4*guessedRecord)
	case n == 0:
		n = guessedRecord
	default:
		n = min(n, maxGuess)
	}
	return max(n, maxRecordHead)
}

// RecordBytes estimates the size of a record with the given bound.
func (b *Block) RecordBytes(bound uint32) int64 { return b.recordBound(bound) }

// appendSpan appends [off, end) to spans, which are sorted by Off, or extends the last of them.
func appendSpan(spans []pagecache.Span, off, end int64) []pagecache.Span {
	if n := len(spans) - 1; n >= 0 && off <= spans[n].End {
		spans[n].End = max(spans[n].End, end)
		return spans
	}
	return append(spans, pagecache.Span{Off: off, End: end})
}
