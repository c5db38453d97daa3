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

// Doubt is why a block is measured.
type Doubt int

const (
	// SizeDoubt: a size is not known, or a read shows that it does not hold.
	SizeDoubt Doubt = iota
	// BytesDoubt: bytes do not verify. If the sizes hold, the file may have been repaired at its
	// size: the versions of the files become part of the block's identity, so that all of it is
	// read again, once.
	BytesDoubt
	// NameDoubt: a chunk file is missing, or refers to none that is known. The files are listed.
	NameDoubt
)

// Verdict is the outcome of a measurement of a block's files.
type Verdict int

const (
	// Unasked: the bucket was not asked, because it was asked just now or could not answer.
	Unasked Verdict = iota
	// Confirmed: the files are as they were known.
	Confirmed
	// Changed: they are not. The view has the block with another Content by now.
	Changed
)

const (
	// maxMeasureWait bounds the time after which a block is measured again that was as it was
	// known: what is wrong with it, its sizes are right.
	maxMeasureWait = time.Minute

	// listPatience is how long the listing of a block's chunk files may take. Buckets throttle
	// listings harder than reads, and chunk files have names that can be tried.
	listPatience = 5 * time.Second
	// measureTimeout ends a measurement.
	measureTimeout = 2 * time.Minute
	// measureRequests is how many files of a block are asked for at once.
	measureRequests = 8
	// maxTried bounds how many names of chunk files are tried.
	maxTried = 1 << 14
)

// measureKey tells measurements apart.
type measureKey struct {
	id    ulid.ULID
	doubt Doubt
}

// measurement is one measurement of a block that any number of callers wait for. What it found may
// be read once done is closed.
type measurement struct {
	content uint64
	done    chan struct{}

	verdict Verdict
	err     error
	next    time.Time // not before then is the same asked again
	wait    time.Duration
}

// Measure asks the bucket how large the files of a block really are, if the view has the block with
// the given content, and publishes the block with what it finds. Callers ask it when sizes are not
// known, and when a read shows that one cannot be right. Concurrent calls for one doubt share one
// measurement, and one that changed nothing is not repeated for a while. A measurement that ctx
// abandons goes on for the others. The error is why the bucket could not tell.
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
		return Unasked, context.Cause(ctx)
	}
}

// measuring returns the measurement to wait for. nil: there is none, for the reason returned.
func (c *Catalog) measuring(key measureKey, content uint64) (*measurement, Verdict, error) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	b := c.View().ByID(key.id)
	switch {
	case c.closing.Err() != nil:
		return nil, Unasked, errors.New("measure a block: the catalog is closed")
	case b == nil:
		return nil, Unasked, nil
	case b.Content != content:
		return nil, Changed, nil
	}
	last := c.measurements[key]
	m := &measurement{content: content, done: make(chan struct{}), wait: c.opts.MeasureEvery}
	if last != nil {
		select {
		case <-last.done:
		default:
			return last, Unasked, nil
		}
		if last.content == content {
			if time.Now().Before(last.next) {
				return nil, Unasked, last.err
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
			m.verdict = Unasked
		}
		m.err, m.next = err, time.Now().Add(m.wait)
		c.metrics.measured(m.verdict, err)
	})
	return m, Unasked, nil
}

// measure is one measurement.
func (c *Catalog) measure(ctx context.Context, b *Block, doubt Doubt) (Verdict, error) {
	found, err := c.ask(ctx, b, doubt == NameDoubt)
	if err != nil {
		c.log.Warn("sizes of a block's files could not be learned", "block", b.ID, "err", err)
	}
	if c.learn(b, found, doubt == BytesDoubt) {
		return Changed, err
	}
	return Confirmed, err
}

// forgetMeasurements forgets those of blocks that keep does not want.
func (c *Catalog) forgetMeasurements(keep func(ulid.ULID) bool) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	maps.DeleteFunc(c.measurements, func(k measureKey, _ *measurement) bool { return !keep(k.id) })
}

// ask asks the bucket for the files of a block. What it could not learn stays as b has it, and the
// error says why.
func (c *Catalog) ask(ctx context.Context, b *Block, list bool) (extents, error) {
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
		chunkErr = c.askChunks(ctx, b.ID, known, list || len(known) == 0)
		return nil
	}))
	err := g.Wait() // a panic; else each has its own error
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

// askChunks brings known, the chunk files of a block, to what the bucket has.
func (c *Catalog) askChunks(ctx context.Context, id ulid.ULID, known fileExtents, list bool) error {
	dir := id.String() + "/chunks/"
	listed := false
	var listErr error
	takeListing := func() {
		var names []string
		if names, listErr = c.listChunks(ctx, dir); listErr != nil || len(names) == 0 {
			return // a listing without any file is no answer about a block that has some
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
		takeListing()
	}
	missing, err := c.askSizes(ctx, dir, known)
	if missing && !listed {
		if takeListing(); listed {
			_, err = c.askSizes(ctx, dir, known)
		}
	}
	// What no listing has shown to be gone stays: not every answer that an object is missing is
	// right.
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
	held, err := c.documents.reserve(ctx, listingBytes)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	defer held.release()
	ctx, cancel := context.WithTimeout(ctx, listPatience)
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

// askSizes asks for the sizes of files, and reports whether the bucket says of any that it does not
// have it. A file that it does not tell about stays as it was.
func (c *Catalog) askSizes(
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
	if err := g.Wait(); err != nil { // a panic; else each has its own error
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

// tryNames asks for the chunk files by the names that writers give them, until one does not exist.
func (c *Catalog) tryNames(ctx context.Context, dir string, files fileExtents) error {
	for n := 1; n <= maxTried; n++ {
		name := fmt.Sprintf("%0*d", chunkNameLen, n)
		e, err := c.extentOf(ctx, dir+name)
		switch {
		case errors.Is(err, extent.ErrNotFound):
			return nil
		case err != nil:
			// Half of the files would look like all of them.
			clear(files)
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
