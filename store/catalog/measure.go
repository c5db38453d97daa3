package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"larder/internal/extent"
	"larder/internal/panics"
)

// Doubt is the reason for a measurement.
type Doubt int

const (
	// SizeDoubt: a size is unknown, or a read shows that it is wrong.
	SizeDoubt Doubt = iota
	// BytesDoubt: bytes do not verify. If the sizes are right, the file may have been repaired
	// without a change of its size. The versions of the files become part of the block's identity,
	// so that all of it is read again, once.
	BytesDoubt
	// NameDoubt: a chunk file is missing, or a reference names an unknown one. The files are
	// listed.
	NameDoubt
)

// Verdict is the result of a measurement.
type Verdict int

const (
	// Unmeasured: there was no measurement, because the last one is recent or the bucket failed.
	Unmeasured Verdict = iota
	// Confirmed: the files are as known.
	Confirmed
	// Changed: the files differ. The view has the block with another Content.
	Changed
)

const (
	// maxMeasureWait is the longest wait between measurements that change nothing.
	maxMeasureWait = time.Minute

	// listTimeout bounds the listing of a block's chunk files. It is short, because buckets
	// throttle listings harder than reads, and the names of chunk files can be guessed.
	listTimeout = 5 * time.Second
	// measureTimeout bounds a measurement.
	measureTimeout = 2 * time.Minute
	// measureRequests is the number of concurrent requests of a measurement.
	measureRequests = 8
	// maxTried bounds the names of chunk files that are tried.
	maxTried = 1 << 14
)

// measureKey identifies a measurement.
type measureKey struct {
	id    ulid.ULID
	doubt Doubt
}

// measurement is one measurement of a block that any number of callers wait for. Its results are
// final when done is closed.
type measurement struct {
	content uint64
	done    chan struct{}

	verdict Verdict
	err     error
	next    time.Time // earliest time of the next measurement
	wait    time.Duration
}

// Measure asks the bucket for the sizes of a block's files, if the view has the block with the
// given content, and publishes the block with the result. Callers use it if a size is unknown or a
// read shows that it is wrong. Concurrent calls with one doubt share one measurement. A measurement
// that changed nothing is not repeated for a while. It continues for other callers if ctx ends. The
// error is why the bucket could not answer.
func (c *Catalog) Measure(
	ctx context.Context, id ulid.ULID, content uint64, doubt Doubt,
) (Verdict, error) {
	m, verdict, err := c.measuring(measureKey{id, doubt}, content)
	if m == nil {
		return verdict, err
	}
	select {
	case <-m.done:
		return m.verdict, m.err
	case <-ctx.Done():
		return Unmeasured, context.Cause(ctx)
	}
}

// measuring returns the measurement to wait for, or nil and the result if there is none.
func (c *Catalog) measuring(key measureKey, content uint64) (*measurement, Verdict, error) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	b := c.View().ByID(key.id)
	switch {
	case c.closing.Err() != nil:
		return nil, Unmeasured, errors.New("measure a block: the catalog is closed")
	case b == nil:
		return nil, Unmeasured, nil
	case b.Content != content:
		return nil, Changed, nil
	}
	last := c.measurements[key]
	m := &measurement{content: content, done: make(chan struct{}), wait: c.opts.MeasureEvery}
	if last != nil {
		select {
		case <-last.done:
		default:
			return last, Unmeasured, nil
		}
		if last.content == content {
			if time.Now().Before(last.next) {
				return nil, Unmeasured, last.err
			}
			m.wait = min(2*last.wait, maxMeasureWait)
		}
	}
	c.measurements[key] = m
	c.flights.Go(func() {
		defer close(m.done)
		ctx, cancel := context.WithTimeout(c.closing, measureTimeout)
		defer cancel()
		err := c.panics.Do(func() (err error) {
			m.verdict, err = c.measure(ctx, b, key.doubt)
			return err
		})
		switch {
		case m.verdict == Changed:
			err = nil
		case err != nil:
			m.verdict = Unmeasured
		}
		m.err, m.next = err, time.Now().Add(m.wait)
		c.metrics.measured(m.verdict, err)
	})
	return m, Unmeasured, nil
}

// measure makes one measurement.
func (c *Catalog) measure(ctx context.Context, b *Block, doubt Doubt) (Verdict, error) {
	found, err := c.measureFiles(ctx, b, doubt == NameDoubt)
	if err != nil {
		c.log.Warn("cannot measure the files of a block", "block", b.ID, "err", err)
	}
	if c.learn(b, found, doubt == BytesDoubt) {
		return Changed, err
	}
	return Confirmed, err
}

// forgetMeasurements forgets the measurements of blocks for which keep returns false.
func (c *Catalog) forgetMeasurements(keep func(ulid.ULID) bool) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	maps.DeleteFunc(c.measurements, func(k measureKey, _ *measurement) bool { return !keep(k.id) })
}

// measureFiles asks the bucket for the files of a block. It returns the known size of a file that
// the bucket does not state, with the reason as an error.
func (c *Catalog) measureFiles(ctx context.Context, b *Block, list bool) (extents, error) {
	out := c.known(b)
	known := fileExtents{}
	for _, f := range out.Chunk {
		known[f.Name] = f
	}
	var indexErr, chunkErr error
	var g errgroup.Group
	g.Go(panics.Contained(func() error {
		e, err := c.extentOf(ctx, b.ID.String()+"/"+indexFile)
		if indexErr = err; err == nil {
			out.Index.Size, out.Index.Version = e.Size, e.Version
		}
		return nil
	}))
	g.Go(panics.Contained(func() error {
		chunkErr = c.measureChunks(ctx, b.ID, known, list || len(known) == 0)
		return nil
	}))
	err := g.Wait() // only panics
	out.Chunk = known.inOrder()
	return out, errors.Join(indexErr, chunkErr, err)
}

// fileExtents are the chunk files of a block by name.
type fileExtents map[string]fileExtent

func (f fileExtents) inOrder() []fileExtent {
	var numbered []numberedFile
	for name := range f {
		numbered = appendChunkFile(numbered, name, 0)
	}
	var out []fileExtent
	for _, file := range inOrder(numbered) {
		out = append(out, f[file.Name])
	}
	return out
}

// measureChunks updates known, the chunk files of a block, to the state of the bucket.
func (c *Catalog) measureChunks(
	ctx context.Context, id ulid.ULID, known fileExtents, list bool,
) error {
	dir := id.String() + "/chunks/"
	listed := false
	var listErr error
	updateNames := func() {
		var names []string
		if names, listErr = c.listChunks(ctx, dir); listErr != nil || len(names) == 0 {
			return // every block has chunk files: an empty listing is wrong
		}
		listed = true
		for name := range known {
			if !slices.Contains(names, name) {
				delete(known, name)
			}
		}
		for _, name := range names {
			if _, ok := known[name]; !ok {
				known[name] = fileExtent{Name: name}
			}
		}
	}
	if list {
		updateNames()
	}
	missing, err := c.measureSizes(ctx, dir, known)
	if missing && !listed {
		if updateNames(); listed {
			_, err = c.measureSizes(ctx, dir, known)
		}
	}
	// Only a listing removes files: "not found" for one object may be wrong.
	if len(known) == 0 {
		err = errors.Join(err, listErr, c.tryNames(ctx, dir, known))
		if len(known) > 0 {
			err = nil
		}
	}
	return err
}

// listChunks lists the names of a block's chunk files.
func (c *Catalog) listChunks(ctx context.Context, dir string) (names []string, err error) {
	page, err := c.documents.reserve(ctx, listingBytes)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	defer page.release()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	err = c.bucket.Iter(ctx, dir, func(name string) error {
		if base := path.Base(name); len(appendChunkFile(nil, base, 0)) > 0 {
			if len(names) == maxChunkFiles {
				return fmt.Errorf("%w: more than %d chunk files", errRefused, maxChunkFiles)
			}
			names = append(names, base)
		}
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return names, nil
}

// measureSizes asks the bucket for the sizes of files. missing reports whether it lacks any of
// them. A file keeps its known size if the bucket does not state one.
func (c *Catalog) measureSizes(
	ctx context.Context, dir string, files fileExtents,
) (missing bool, err error) {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	found := make([]extent.Extent, len(names))
	errs := make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(measureRequests)
	for i, name := range names {
		g.Go(panics.Contained(func() error {
			found[i], errs[i] = c.extentOf(ctx, dir+name)
			return nil
		}))
	}
	if err := g.Wait(); err != nil { // only panics
		return false, err
	}
	for i, name := range names {
		switch {
		case errs[i] == nil:
			files[name] = fileExtent{Name: name, Size: found[i].Size, Version: found[i].Version}
		case errors.Is(errs[i], extent.ErrNotFound):
			missing, errs[i] = true, nil
		}
	}
	return missing, joinSome(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
}

// tryNames asks for chunk files by the names that writers use, until one does not exist.
func (c *Catalog) tryNames(ctx context.Context, dir string, files fileExtents) error {
	for n := 1; n <= maxTried; n++ {
		name := fmt.Sprintf("%0*d", chunkNameLen, n)
		e, err := c.extentOf(ctx, dir+name)
		switch {
		case errors.Is(err, extent.ErrNotFound):
			return nil
		case err != nil:
			clear(files) // a part of the files would look like all of them
			return err
		}
		files[name] = fileExtent{Name: name, Size: e.Size, Version: e.Version}
	}
	return nil
}

func (c *Catalog) extentOf(ctx context.Context, name string) (extent.Extent, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	return extent.Of(ctx, c.reader, name)
}
