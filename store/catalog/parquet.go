package catalog

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"google.golang.org/protobuf/encoding/protowire"
)

// ParquetBucket is the part of objstore.Bucket that the catalog uses for the bucket of a Parquet
// converter.
type ParquetBucket interface {
	IterWithAttributes(
		ctx context.Context, dir string, f func(attrs objstore.IterObjectAttributes) error,
		options ...objstore.IterOption,
	) error
	SupportedIterOptions() []objstore.IterOptionType
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	IsObjNotFoundErr(err error) bool
}

const (
	// parquetMetaFile names the source blocks of one day of one external label set. The converter
	// writes it last.
	parquetMetaFile = "meta.pb"
	// parquetMarkFile marks a day that the Parquet gateway no longer serves. The day is deleted
	// hours later.
	parquetMarkFile = "deletion-marker.pb"

	// parquetDelay is the minimum age of a meta.pb that counts. The gateway looks for new days
	// every minute and needs time to open them. Without the delay, neither process would serve the
	// data until then.
	parquetDelay = 5 * time.Minute
)

// conversions is the state of the Parquet bucket at its last read. It is immutable.
type conversions struct {
	files map[string]parquetFile // by object name
	err   error                  // of the last read; files that it could not read are unchanged
}

// parquetFile is a meta.pb.
type parquetFile struct {
	meta     parquetMeta
	err      error     // why the file is not a valid meta.pb; then it does not count
	sum      uint64    // hash of its bytes
	modified time.Time // zero if the listing does not state it
	since    time.Time // the bytes exist at least since then
	marked   bool      // for deletion
}

// counts reports whether the Parquet gateway serves the data of the file.
func (f *parquetFile) counts(now time.Time) bool {
	return f.err == nil && !f.marked && now.Sub(f.since) >= parquetDelay
}

// period is a range of time in milliseconds, [from, to).
type period struct{ from, to int64 }

// periods returns the converted times of every converted block.
func (s *conversions) periods(now time.Time) map[ulid.ULID][]period {
	if len(s.files) == 0 {
		return nil
	}
	converted := map[ulid.ULID][]period{}
	for _, f := range s.files {
		if !f.counts(now) {
			continue
		}
		for _, id := range f.meta.blocks {
			converted[id] = append(converted[id], period{f.meta.minTime, f.meta.maxTime})
		}
	}
	return converted
}

// covers reports whether the periods together cover [from, to). A block is served until all days
// that it overlaps are converted.
func covers(periods []period, from, to int64) bool {
	to = max(to, from+1) // a block of one instant covers that instant
	slices.SortFunc(periods, func(a, b period) int { return cmp.Compare(a.from, b.from) })
	for _, p := range periods {
		if p.from > from {
			break
		}
		from = max(from, p.to)
	}
	return from >= to
}

// readParquet lists the Parquet bucket, reads its new files, and stores the result for syncs. A
// file that cannot be read stays as known, so that a fault of that bucket removes no block. A
// broken file does not count, so that its blocks are served.
func (c *Catalog) readParquet(ctx context.Context) error {
	if c.opts.Parquet == nil {
		return nil
	}
	c.parquetMu.Lock()
	defer c.parquetMu.Unlock()
	next := &conversions{files: c.parquet.Load().files}
	next.err = c.panics.Do(func() (err error) {
		var listed map[string]parquetFile
		if listed, err = c.listParquet(ctx); err == nil {
			next.files, err = c.readParquetFiles(ctx, listed, next.files)
		}
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if next.err != nil {
		next.err = fmt.Errorf("Parquet bucket: %w", next.err)
		c.metrics.parquetFailures.Inc()
	}
	c.metrics.parquetFiles.Set(float64(len(next.files)))
	c.parquet.Store(next)
	return next.err
}

// listParquet lists the meta.pb files of the bucket, without their contents.
func (c *Catalog) listParquet(ctx context.Context) (map[string]parquetFile, error) {
	page, err := c.documents.reserve(ctx, listingBytes)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	defer page.release()
	ctx, progress, stop := withStall(ctx, c.opts.StallTimeout)
	defer stop()
	options := []objstore.IterOption{objstore.WithRecursiveIter()}
	if slices.Contains(c.opts.Parquet.SupportedIterOptions(), objstore.UpdatedAt) {
		options = append(options, objstore.WithUpdatedAt())
	}
	files := map[string]parquetFile{}
	var marked []string
	err = c.opts.Parquet.IterWithAttributes(ctx, "", func(o objstore.IterObjectAttributes) error {
		progress()
		switch dir, file := path.Split(o.Name); file {
		case parquetMetaFile:
			f := parquetFile{}
			f.modified, _ = o.LastModified()
			files[o.Name] = f
		case parquetMarkFile:
			marked = append(marked, dir+parquetMetaFile)
		}
		return ctx.Err()
	}, options...)
	if err == nil {
		err = ctx.Err() // some clients return no error for an interrupted listing
	}
	if err != nil {
		return nil, fmt.Errorf("list: %w", withCause(ctx, err))
	}
	for _, name := range marked {
		if f, ok := files[name]; ok {
			f.marked = true
			files[name] = f
		}
	}
	return files, nil
}

// readParquetFiles returns the listed files with their contents. It reads those that are new or
// have changed, and takes the others from known.
func (c *Catalog) readParquetFiles(
	ctx context.Context, listed, known map[string]parquetFile,
) (map[string]parquetFile, error) {
	now := time.Now()
	files := make(map[string]parquetFile, len(listed))
	var reads []string
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		f, ok := known[name]
		// A broken file is read again, because its upload may end within the resolution of the
		// listing's times.
		if !ok || f.err != nil || f.modified.IsZero() || !f.modified.Equal(listed[name].modified) {
			reads = append(reads, name)
			continue
		}
		f.marked = listed[name].marked
		files[name] = f
	}

	type result struct {
		meta    parquetMeta
		sum     uint64
		broken  error // why it is not a valid meta.pb
		outcome readOutcome
		err     error
	}
	results := make([]result, len(reads))
	retain := retention{limit: c.opts.DocumentBytes}
	for name, f := range files {
		retain.add(retained{f.meta.size(), name, func(why error) {
			f.meta, f.err = parquetMeta{}, why
			files[name] = f
		}})
	}
	// Bounds the delay of the sync by a bucket that does not answer. Thousands of reads would need
	// hours to time out one by one.
	ctx, progress, stop := withStall(ctx, c.opts.StallTimeout)
	defer stop()
	c.parallel(len(reads), func(i int) error {
		r := &results[i]
		r.outcome, r.err = c.readObjectOf(ctx, c.opts.Parquet, reads[i], maxMetaSize,
			func(data []byte) error {
				r.meta, r.broken = parseParquetMeta(data)
				r.sum = xxhash.Sum64(data)
				return nil
			})
		if r.outcome == readBroken { // refused before it was read
			r.outcome, r.broken = readOK, r.err
		}
		retain.add(retained{r.meta.size(), reads[i], func(why error) {
			r.meta, r.broken = parquetMeta{}, why
		}})
		if r.outcome != readFailed {
			progress()
		}
		return r.err
	}, func(i int, err error) { results[i] = result{outcome: readFailed, err: err} })

	var errs []error
	if cause := context.Cause(ctx); cause != nil {
		errs = append(errs, cause)
	}
	for i, name := range reads {
		last, isKnown := known[name]
		switch r := results[i]; {
		case r.outcome == readOK:
			f := listed[name]
			f.meta, f.err = r.meta, r.broken
			if f.sum, f.since = r.sum, now; isKnown && last.sum == f.sum {
				f.since = last.since
			}
			if !f.modified.IsZero() && f.modified.Before(f.since) {
				f.since = f.modified
			}
			files[name] = f
		case r.outcome == readFailed:
			errs = append(errs, r.err)
			if isKnown {
				last.marked = listed[name].marked
				files[name] = last
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := files[name].err; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return files, joinSome(errs)
}

// parquetMeta has the fields of a meta.pb that larder reads.
type parquetMeta struct {
	minTime, maxTime int64 // [minTime, maxTime): the day
	blocks           []ulid.ULID
}

// size returns the memory of m in bytes.
func (m *parquetMeta) size() int64 {
	return int64(cap(m.blocks)) * int64(unsafe.Sizeof(ulid.ULID{}))
}

// The fields of the message in meta.pb.
const (
	parquetMinTime protowire.Number = 1
	parquetMaxTime protowire.Number = 2
	parquetBlocks  protowire.Number = 6 // the block IDs as strings
)

// parseParquetMeta parses a meta.pb. It skips unknown fields, because new versions of writers add
// some. Its error is errBroken.
func parseParquetMeta(data []byte) (parquetMeta, error) {
	fail := func(format string, args ...any) (parquetMeta, error) {
		return parquetMeta{}, fmt.Errorf("%w meta.pb: %s", errBroken, fmt.Sprintf(format, args...))
	}
	if len(data) > maxMetaSize {
		return fail("larger than %d bytes", maxMetaSize)
	}
	var m parquetMeta
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fail("%v", protowire.ParseError(n))
		}
		data = data[n:]
		switch number {
		case parquetMinTime, parquetMaxTime:
			v, n := protowire.ConsumeVarint(data)
			if kind != protowire.VarintType || n < 0 {
				return fail("field %d is not a time", number)
			}
			if number == parquetMinTime {
				m.minTime = int64(v)
			} else {
				m.maxTime = int64(v)
			}
			data = data[n:]
		case parquetBlocks:
			text, n := protowire.ConsumeBytes(data)
			if kind != protowire.BytesType || n < 0 {
				return fail("field %d is not a string", number)
			}
			id, ok := parseBlockID(string(text))
			if !ok {
				return fail("%.40q is not a block ID", text)
			}
			if len(m.blocks) == maxListed {
				return parquetMeta{}, fmt.Errorf("%w meta.pb: %w: it names more than %d blocks",
					errBroken, errRefused, maxListed)
			}
			m.blocks = append(m.blocks, id)
			data = data[n:]
		default:
			n := protowire.ConsumeFieldValue(number, kind, data)
			if n < 0 {
				return fail("field %d: %v", number, protowire.ParseError(n))
			}
			data = data[n:]
		}
	}
	// Files of the first converters name no block. Their times do not matter.
	if len(m.blocks) > 0 && m.minTime >= m.maxTime {
		return fail("mint %d is not before maxt %d", m.minTime, m.maxTime)
	}
	return m, nil
}
