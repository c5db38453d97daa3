package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"larder/internal/localfs"
)

// Inventory is what a bucket has, without a gateway's memory of earlier listings.
type Inventory struct {
	// At is when the listing began.
	At time.Time
	// Entries are all blocks, sorted by ID, whether a gateway would serve them or not.
	Entries []Entry
	// Objects is the number of listed objects, 0 without InventoryOptions.Files.
	Objects int
	// Others counts names that belong to no block. Examples has some of them.
	Others   int
	Examples []string
}

// Entry is one block of an inventory.
type Entry struct {
	ID ulid.ULID
	// Block is the content of meta.json, nil if that is missing or cannot be used.
	Block *Block
	// State is StateLoaded if a gateway with these options serves the block, or covers it by a
	// larger one. Otherwise it is a label value of thanos_blocks_meta_synced.
	State string
	// Covered says that another block has all the data of this one.
	Covered bool
	// Err says why Block is nil, or why the sizes of its files are unknown.
	Err error
	// Failed says that the bucket caused Err. Another attempt may succeed.
	Failed bool
	// Uploaded is the time of the upload, zero if meta.json does not state it.
	Uploaded time.Time
	Marks    []Mark
	// Files are what the listing showed, zero without InventoryOptions.Files.
	Files Files
}

// Files are the objects of one block.
type Files struct {
	// Objects is the number of objects, Chunks that of chunk files among them.
	Objects, Chunks int
	Meta, Index     bool
	// Modified is the latest change of an object, zero if the bucket does not state it.
	Modified time.Time

	marks []string
}

// Mark is a mark object of a block.
type Mark struct {
	// Name is the name of the object, such as deletion-mark.json.
	Name string
	// At is when the block was marked, zero if the mark does not state it.
	At time.Time
	// Reason and Details are texts of the mark.
	Reason, Details string
	// Err says why the mark cannot be used.
	Err error
}

// The states of entries that readers distinguish.
const (
	StateLoaded    = stateLoaded
	StateDuplicate = stateDuplicate
	StateNoMeta    = stateNoMeta
	StateMarked    = stateMarked
)

// DeletionMark is the object that marks a block for deletion.
const DeletionMark = markFile

// noDownsampleFile is a mark for the compactor.
const noDownsampleFile = "no-downsample-mark.json"

// InventoryOptions choose what an inventory reads besides each meta.json.
type InventoryOptions struct {
	// Files lists every object, which shows the files and all marks of a block. Otherwise only the
	// root is listed, and one request looks for the deletion mark of each block.
	Files bool
	// Block reads this block alone, with its files. A zero ULID reads all blocks.
	Block ulid.ULID
	// Progress is called while the inventory grows, one call at a time. total is 0 while it is
	// unknown. nil: not called.
	Progress func(stage string, done, total int)
}

// TakeInventory lists a bucket and reads the meta.json and the marks of its blocks. It applies the
// filters of opts to each entry, and leaves no block out. A block that cannot be read is an entry
// with an error. The error of TakeInventory is that of the listing: there is no inventory then.
//
// It bounds concurrent reads and the memory of documents as a Catalog does. It writes nothing:
// Options.Dir is ignored.
func TakeInventory(ctx context.Context, opts Options, o InventoryOptions) (*Inventory, error) {
	opts.Dir, opts.LockDir = localfs.Dir{}, nil
	o.Files = o.Files || !o.Block.IsZero()
	c, err := New(opts)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := stocktaker{c: c, options: o, now: time.Now(), entries: map[ulid.ULID]*Entry{}}
	return s.take(ctx)
}

// stocktaker takes one inventory.
type stocktaker struct {
	c       *Catalog
	options InventoryOptions
	now     time.Time
	entries map[ulid.ULID]*Entry
	order   []*Entry // by ID
	out     Inventory

	mu sync.Mutex // guards calls of Progress
}

func (s *stocktaker) progress(stage string, done, total int) {
	if s.options.Progress != nil {
		s.options.Progress(stage, done, total)
	}
}

func (s *stocktaker) take(ctx context.Context) (*Inventory, error) {
	s.out.At = s.now
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	for _, e := range s.entries {
		s.order = append(s.order, e)
	}
	slices.SortFunc(s.order, func(a, b *Entry) int { return a.ID.Compare(b.ID) })
	records := s.readMetas(ctx)
	if err := s.forgetVanished(ctx); err != nil {
		return nil, err
	}
	s.readMarks(ctx, records)
	s.measure(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.choose(records)
	for _, e := range s.order {
		s.out.Entries = append(s.out.Entries, *e)
	}
	return &s.out, nil
}

// list finds the blocks.
func (s *stocktaker) list(ctx context.Context) error {
	const stage = "listing the bucket"
	if !s.options.Files {
		s.progress(stage, 0, 0)
		l, err := s.c.list(ctx, Concurrent)
		if err != nil {
			return err
		}
		for id := range l.blocks {
			s.entries[id] = &Entry{ID: id}
		}
		s.out.Others, s.out.Examples = l.others, l.examples
		return nil
	}
	page, err := s.c.documents.reserve(ctx, listingBytes)
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	defer page.release()
	ctx, progress, stop := withStall(ctx, s.c.opts.StallTimeout)
	defer stop()
	options := []objstore.IterOption{objstore.WithRecursiveIter()}
	if slices.Contains(s.c.bucket.SupportedIterOptions(), objstore.UpdatedAt) {
		options = append(options, objstore.WithUpdatedAt())
	}
	var others listing
	dir := ""
	if !s.options.Block.IsZero() {
		dir = s.options.Block.String() + objstore.DirDelim
	}
	err = s.c.bucket.IterWithAttributes(ctx, dir, func(o objstore.IterObjectAttributes) error {
		progress()
		s.out.Objects++
		s.progress(stage, s.out.Objects, 0)
		dir, file, isDir := strings.Cut(o.Name, objstore.DirDelim)
		id, ok := parseBlockID(dir)
		if !ok || !isDir {
			others.addOther(o.Name)
			return ctx.Err()
		}
		e := s.entries[id]
		if e == nil {
			e = &Entry{ID: id}
			s.entries[id] = e
		}
		e.Files.add(file, o)
		return ctx.Err()
	}, options...)
	if err == nil {
		err = ctx.Err() // some clients return no error for an interrupted listing
	}
	if err != nil {
		return fmt.Errorf("list blocks: %w", withCause(ctx, err))
	}
	s.out.Others, s.out.Examples = others.others, others.examples
	return nil
}

// add counts one object.
func (f *Files) add(file string, o objstore.IterObjectAttributes) {
	f.Objects++
	if at, ok := o.LastModified(); ok && at.After(f.Modified) {
		f.Modified = at
	}
	switch file {
	case metaFile:
		f.Meta = true
	case indexFile:
		f.Index = true
	case markFile, noCompactFile, noDownsampleFile:
		f.marks = append(f.marks, file)
	default:
		if name, ok := strings.CutPrefix(file, "chunks/"); ok &&
			len(appendChunkFile(nil, name, 0)) > 0 {
			f.Chunks++
		}
	}
}

// each calls f for some entries, concurrently, and reports progress.
func (s *stocktaker) each(stage string, entries []*Entry, f func(i int, e *Entry)) {
	done := 0
	count := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		done++
		s.progress(stage, done, len(entries))
	}
	s.c.parallel(len(entries), func(i int) error {
		f(i, entries[i])
		count()
		return nil
	}, func(i int, err error) { entries[i].fail(stateFailed, err) })
}

// fail makes an entry one without a Block.
func (e *Entry) fail(state string, err error) {
	e.Block, e.State, e.Err, e.Failed = nil, state, err, state == stateFailed
}

// readMetas reads each meta.json.
func (s *stocktaker) readMetas(ctx context.Context) map[ulid.ULID]*record {
	var reads []*Entry
	for _, e := range s.order {
		if s.options.Files && !e.Files.Meta {
			e.fail(stateNoMeta, errors.New("no meta.json in the listing"))
			continue
		}
		reads = append(reads, e)
	}
	// retention drops a result only after it was added, and holds its lock meanwhile.
	metas := make([]*meta, len(reads))
	retain := retention{limit: s.c.opts.DocumentBytes}
	s.each("reading meta.json", reads, func(i int, e *Entry) {
		res := s.c.readMeta(ctx, e.ID, true)
		switch res.outcome {
		case readOK:
			metas[i] = res.meta
			e.Block, e.Uploaded = &res.meta.block, res.meta.uploadTime
			retain.add(retained{res.meta.bytes, e.ID.String(), func(why error) {
				metas[i] = nil
				e.fail(stateCorrupted, refusedMeta(e.ID, why))
			}})
		case readMissing:
			e.fail(stateNoMeta, errors.New("no meta.json"))
		case readBroken:
			e.fail(stateCorrupted, res.err)
		case readFailed:
			e.fail(stateFailed, res.err)
		}
	})
	records := make(map[ulid.ULID]*record, len(metas))
	for i, m := range metas {
		if m != nil {
			records[reads[i].ID] = &record{meta: m}
		}
	}
	return records
}

// forgetVanished removes blocks that were deleted after the listing and before their meta.json was
// read. It lists the root again if there may be any.
func (s *stocktaker) forgetVanished(ctx context.Context) error {
	suspect := func(e *Entry) bool {
		return e.State == stateNoMeta && (e.Files.Meta || !s.options.Files)
	}
	if !slices.ContainsFunc(s.order, suspect) {
		return nil
	}
	l, err := s.c.list(ctx, Concurrent)
	if err != nil {
		return err
	}
	s.order = slices.DeleteFunc(s.order, func(e *Entry) bool {
		_, still := l.blocks[e.ID]
		return suspect(e) && !still
	})
	return nil
}

// readMarks reads the marks of all entries. A mark that cannot be read is in the entry.
func (s *stocktaker) readMarks(ctx context.Context, records map[ulid.ULID]*record) {
	reads := s.order
	if s.options.Files {
		reads = slices.DeleteFunc(slices.Clone(s.order), func(e *Entry) bool {
			return len(e.Files.marks) == 0
		})
	} else {
		reads = slices.DeleteFunc(slices.Clone(s.order), func(e *Entry) bool {
			return e.Block == nil
		})
	}
	s.each("reading marks", reads, func(_ int, e *Entry) {
		names := e.Files.marks
		if !s.options.Files {
			names = []string{markFile}
		}
		for _, name := range slices.Sorted(slices.Values(names)) {
			m, outcome := s.readMark(ctx, e.ID, name)
			if outcome == readMissing {
				continue
			}
			e.Marks = append(e.Marks, m)
			e.Failed = e.Failed || outcome == readFailed
			if r := records[e.ID]; r != nil && name == markFile && outcome == readOK {
				r.mark = mark{known: true, marked: true, deletionTime: m.At.Unix()}
			}
		}
	})
}

// readMark reads one mark.
func (s *stocktaker) readMark(
	ctx context.Context, id ulid.ULID, name string,
) (m Mark, outcome readOutcome) {
	m.Name = name
	outcome, m.Err = s.c.readObject(ctx, id.String()+"/"+name, maxMarkSize,
		func(data []byte) error {
			if name == markFile {
				at, err := parseMark(id, data)
				if err != nil {
					return err
				}
				m.At = time.Unix(at, 0).UTC()
			}
			var j struct {
				NoCompact    int64  `json:"no_compact_time"`
				NoDownsample int64  `json:"no_downsample_time"`
				Reason       string `json:"reason"`
				Details      string `json:"details"`
			}
			if err := json.Unmarshal(data, &j); err != nil {
				return fmt.Errorf("%w %s of block %s: %w", errBroken, name, id, err)
			}
			if at := cmp.Or(j.NoCompact, j.NoDownsample); name != markFile && at > 0 {
				m.At = time.Unix(at, 0).UTC()
			}
			m.Reason = j.Reason[:min(len(j.Reason), maxErrorText)]
			m.Details = j.Details[:min(len(j.Details), maxErrorText)]
			return nil
		})
	return m, outcome
}

// measure asks the bucket for the sizes of files that meta.json does not state.
func (s *stocktaker) measure(ctx context.Context) {
	reads := slices.DeleteFunc(slices.Clone(s.order), func(e *Entry) bool {
		return e.Block == nil || e.Block.Sized()
	})
	s.each("measuring files", reads, func(_ int, e *Entry) {
		found, err := s.c.measureFiles(ctx, e.Block, false)
		sized := found.applyTo(*e.Block)
		e.Block, e.Err = &sized, err
	})
}

// choose sets the states of the entries that have a Block, as a first sync decides.
func (s *stocktaker) choose(records map[ulid.ULID]*record) {
	var selected []*record
	for _, e := range s.order {
		r := records[e.ID]
		if r == nil {
			continue
		}
		states := stateCounts{}
		kept := s.c.selectByMeta([]*record{r}, s.now, ownership{}, states)
		for state := range states {
			e.State = state
		}
		switch {
		case len(kept) == 0:
		case r.mark.expired(s.now, s.c.opts.IgnoreDeletionMarksDelay):
			e.State = stateMarked
		default:
			e.State = stateLoaded
			selected = append(selected, r)
		}
	}
	remaining, _ := s.c.dropDuplicates(selected, NewView(nil, false), nil, stateCounts{})
	uncovered := make(map[ulid.ULID]bool, len(remaining))
	for _, r := range remaining {
		uncovered[r.id()] = true
	}
	for _, e := range s.order {
		e.Covered = e.State == stateLoaded && !uncovered[e.ID]
	}
}

// Bytes returns the size of the block's files, as far as they are known.
func (b *Block) Bytes() int64 {
	n := b.IndexSize
	for _, f := range b.ChunkFiles {
		n += f.Size
	}
	return n
}
