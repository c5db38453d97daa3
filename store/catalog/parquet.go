package catalog

import (
	"cmp"
	"context"
	"errors"
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

// ParquetBucket is what the catalog needs of the bucket that a Parquet converter writes to; every
// objstore.Bucket has it.
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
	// parquetMetaFile says of one day of one external label set what it was converted from. The
	// converter writes it last.
	parquetMetaFile = "meta.pb"
	// parquetMarkFile lies beside the meta.pb of a day that the Parquet gateway does not serve any
	// more, hours before both are deleted.
	parquetMarkFile = "deletion-marker.pb"

	// parquetDelay is how old a meta.pb must be to count: the gateway looks for new days every
	// minute and needs some time to open them. A block that left at once would be nowhere until
	// then.
	parquetDelay = 5 * time.Minute
)

// conversions is what the Parquet bucket held when it was last read. It is immutable.
type conversions struct {
	files map[string]parquetFile // by object name
	err   error                  // of the last read; what it could not see is as it was before
}

// parquetFile is a meta.pb.
type parquetFile struct {
	meta     parquetMeta
	err      error     // it is not a meta.pb: then it says nothing
	sum      uint64    // of its bytes
	modified time.Time // zero where the bucket's listing does not tell
	since    time.Time // when these bytes were there at the latest
	marked   bool      // for deletion
}

// counts reports whether the Parquet gateway can be taken to serve what the file stands for.
func (f *parquetFile) counts(now time.Time) bool {
	return f.err == nil && !f.marked && now.Sub(f.since) >= parquetDelay
}

// period is a range of time in milliseconds, [from, to).
type period struct{ from, to int64 }

// periods returns, for every block that was converted, the times for which it was.
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

// covers reports whether the periods together have all of [from, to). A block reaches into days
// that are converted later, or never: it is needed until the last of them is.
func covers(periods []period, from, to int64) bool {
	to = max(to, from+1) // a block of one instant has that instant
	slices.SortFunc(periods, func(a, b period) int { return cmp.Compare(a.from, b.from) })
	for _, p := range periods {
		if p.from > from {
			break
		}
		from = max(from, p.to)
	}
	return from >= to
}

// readParquet lists the Parquet bucket, reads what is new there, and keeps it for syncs. What
// cannot be read stays as it was known, so that a fault of that bucket takes no block away; a file
// that is broken says nothing, so that its blocks are served.
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
		next.err = fmt.Errorf("the Parquet bucket: %w", next.err)
		c.metrics.parquetFailures.Inc()
	}
	c.metrics.parquetFiles.Set(float64(len(next.files)))
	c.parquet.Store(next)
	return next.err
}

// listParquet returns the meta.pb files of the bucket with what a listing shows of them.
func (c *Catalog) listParquet(ctx context.Context) (map[string]parquetFile, error) {
	held, err := c.documents.reserve(ctx, listingBytes)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	defer held.release()
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
		err = ctx.Err() // not every provider says that it was interrupted
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf(
				"%w: %v", cause, err,
			) //nolint:errorlint // which must not look as if somebody had ended it
		}
		return nil, fmt.Errorf("list: %w", err)
	}
	for _, name := range marked {
		if f, ok := files[name]; ok {
			f.marked = true
			files[name] = f
		}
	}
	return files, nil
}

// readParquetFiles returns the listed files with their contents, from known where they have not
// changed.
func (c *Catalog) readParquetFiles(
	ctx context.Context, listed, known map[string]parquetFile,
) (map[string]parquetFile, error) {
	now := time.Now()
	files := make(map[string]parquetFile, len(listed))
	var reads []string
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		f, ok := known[name]
		// A broken one may be on its way, and be whole within the resolution of the listing's
		// times.
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
		broken  error // it is no meta.pb that larder can use
		outcome readOutcome
		err     error
	}
	results := make([]result, len(reads))
	room := keeping{limit: c.opts.DocumentBytes}
	for name, f := range files {
		room.add(kept{f.meta.keeps(), name, func(why error) {
			f.meta, f.err = parquetMeta{}, why
			files[name] = f
		}})
	}
	// A bucket that answers nothing must not hold up the sync for as long as thousands of reads
	// take to time out.
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
		room.add(kept{r.meta.keeps(), reads[i], func(why error) {
			r.meta, r.broken = parquetMeta{},
				why
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

// parquetMeta is what larder reads of a meta.pb.
type parquetMeta struct {
	minTime, maxTime int64 // [minTime, maxTime): the day
	blocks           []ulid.ULID
}

// keeps returns how many bytes m takes.
func (m *parquetMeta) keeps() int64 {
	return int64(cap(m.blocks)) * int64(unsafe.Sizeof(ulid.ULID{}))
}

// The fields of the message in meta.pb.
const (
	parquetMinTime protowire.Number = 1
	parquetMaxTime protowire.Number = 2
	parquetBlocks  protowire.Number = 6 // the block IDs, as texts
)

// parseParquetMeta reads a meta.pb. Fields it does not know are skipped: writers add to the message
// over time. Its error is errBroken.
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
				return fail("field %d is no time", number)
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
				return fail("field %d is no text", number)
			}
			id, ok := parseBlockID(string(text))
			if !ok {
				return fail("%.40q is no block ID", text)
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
	// The first converters did not say what they read: their files name no block and no more is
	// asked of them.
	if len(m.blocks) > 0 && m.minTime >= m.maxTime {
		return fail("mint %d is not before maxt %d", m.minTime, m.maxTime)
	}
	return m, nil
}
