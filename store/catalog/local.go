package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"larder/internal/localfs"
	"larder/internal/panics"
	"larder/internal/sealed"
)

const (
	savedName = "catalog.json"
	// maxShown bounds a meta.json that Document returns, because its caller decodes all of it.
	maxShown = 512 << 10
	// maxSavedSize is more than millions of blocks need.
	maxSavedSize = 1 << 30
)

// metaFormat is the format of a copy of a meta.json, savedFormat the format of catalog.json.
func metaFormat() sealed.Format  { return sealed.Format{Kind: "meta", Version: 1} }
func savedFormat() sealed.Format { return sealed.Format{Kind: "catalog", Version: 1} }

// localStore is the catalog's part of the data directory. Without a directory it keeps copies of
// meta.json in memory for document, and syncs read from the bucket. It also keeps the copies in
// memory that the disk rejected.
type localStore struct {
	dir     localfs.Dir
	lockDir func() error // called before every write

	documents *documents // the account of copies that are read

	memory *packedMetas

	mu sync.Mutex // guards following
	// unwritten has the copies in memory that are written once the view is published, with their
	// bytes before compression. unwrittenBytes is the sum.
	unwritten      map[ulid.ULID]int64
	unwrittenBytes int64
	late           bool        // whether more of them are accepted
	unsynced       []ulid.ULID // copies that a crash of the machine may damage
}

const (
	// maxUnwritten bounds the bytes of copies that are written late. A process that is killed reads
	// these again.
	maxUnwritten = 16 << 20
	// maxLate is the largest copy that is written late.
	maxLate = 64 << 10
	// manyMetas is how many meta.json a sync reads before it writes copies late.
	manyMetas = 256
)

func newLocal(dir localfs.Dir, lockDir func() error, account *documents) *localStore {
	if lockDir == nil {
		lockDir = func() error { return nil }
	}
	return &localStore{dir: dir, lockDir: lockDir, documents: account,
		memory: newPackedMetas(account.size)}
}

// prepare creates the directories and removes unfinished files of a killed process. The directory
// must be locked.
func (s *localStore) prepare() error {
	if s.dir.IsZero() {
		return nil
	}
	if err := s.metaDir().Make(); err != nil {
		return err
	}
	for _, d := range []localfs.Dir{s.dir, s.metaDir(), s.extentsDir()} {
		if err := sealed.RemoveTemps(d, ""); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file in dir. It creates dir if another program has removed it.
func (s *localStore) write(
	f sealed.Format, dir localfs.Dir, name string, data []byte, sync bool,
) error {
	if err := s.lockDir(); err != nil {
		return err
	}
	err := f.Write(dir, name, data, sync)
	if errors.Is(err, fs.ErrNotExist) {
		if err = dir.Make(); err == nil {
			err = f.Write(dir, name, data, sync)
		}
	}
	return err
}

func (s *localStore) metaDir() localfs.Dir { return s.dir.Sub("meta") }

// documentName returns the name of the file about a block in the directories of localStore.
func documentName(id ulid.ULID) string { return id.String() + ".json" }

// meta returns the copy of a block's meta.json, fs.ErrNotExist if there is none. It reserves memory
// in the account of documents.
func (s *localStore) meta(ctx context.Context, id ulid.ULID) (*meta, error) {
	if s.dir.IsZero() {
		return nil, fs.ErrNotExist
	}
	return s.metaIn(ctx, s.metaDir(), id)
}

func (s *localStore) metaIn(ctx context.Context, dir sealed.Files, id ulid.ULID) (*meta, error) {
	copies := reservedFiles{Files: dir, ctx: ctx, documents: s.documents}
	defer copies.release()
	data, err := metaFormat().Read(&copies, documentName(id), maxMetaSize+1<<10)
	if err != nil {
		return nil, err
	}
	return parseMeta(id, data)
}

// metas returns a function like meta that opens the directory once for many blocks. The caller
// calls done at the end.
func (s *localStore) metas(ctx context.Context) (read func(ulid.ULID) (*meta, error), done func()) {
	dir, err := s.metaDir().OpenDir()
	if err != nil {
		// meta returns the error.
		return func(id ulid.ULID) (*meta, error) { return s.meta(ctx, id) }, func() {}
	}
	return func(id ulid.ULID) (*meta, error) { return s.metaIn(ctx, dir, id) },
		func() { _ = dir.Close() } // nothing was written
}

// reservedFiles reserves the memory of a document when its file is opened.
type reservedFiles struct {
	sealed.Files
	ctx         context.Context
	documents   *documents
	reservation *reservation // nil for none
}

func (r *reservedFiles) Open(name string) (*os.File, error) {
	f, err := r.Files.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		cost := documentCost(min(info.Size(), maxMetaSize+1<<10))
		r.reservation, err = r.documents.reserve(r.ctx, cost)
	}
	if err != nil {
		_ = f.Close() // nothing was read or written
		return nil, err
	}
	return f, nil
}

func (r *reservedFiles) release() {
	if r.reservation != nil {
		r.reservation.release()
	}
}

// document returns a block's meta.json as it was in the bucket, fs.ErrNotExist if there is no copy.
// A copy longer than maxShown is an error.
func (s *localStore) document(id ulid.ULID) ([]byte, error) {
	data, err := s.memory.get(id)
	if err != nil && !s.dir.IsZero() {
		return metaFormat().Read(s.metaDir(), documentName(id), maxShown+1<<10)
	}
	return data, err
}

// writeLate says whether putMeta keeps copies in memory until writeMetas. A sync of thousands of
// blocks should not wait for the disk.
func (s *localStore) writeLate(late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = late
}

// putMeta saves a copy of a block's meta.json. If the disk fails, it keeps the copy in memory and
// returns the error.
func (s *localStore) putMeta(id ulid.ULID, data []byte) error {
	if s.dir.IsZero() || s.isLate(id, int64(len(data))) {
		s.memory.put(id, data)
		return nil
	}
	return s.writeMeta(id, data)
}

// isLate reports whether a copy of n bytes is written late, and notes it.
func (s *localStore) isLate(id ulid.ULID, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.late || n > maxLate || s.unwrittenBytes+n > maxUnwritten {
		return false
	}
	if s.unwritten == nil {
		s.unwritten = map[ulid.ULID]int64{}
	}
	s.unwrittenBytes += n - s.unwritten[id]
	s.unwritten[id] = n
	return true
}

// written notes that a copy is no longer to be written.
func (s *localStore) written(id ulid.ULID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwrittenBytes -= s.unwritten[id]
	delete(s.unwritten, id)
}

// writeMetas writes the copies that putMeta has kept in memory. Those that the disk rejects stay
// there; it returns one of the errors.
func (s *localStore) writeMetas(concurrency int) error {
	s.mu.Lock()
	ids := maps.Clone(s.unwritten)
	s.mu.Unlock()
	g := errgroup.Group{}
	g.SetLimit(concurrency)
	for id := range ids {
		g.Go(panics.Contained(func() error {
			defer s.written(id)
			data, err := s.memory.get(id)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // was removed
			}
			if err == nil {
				err = s.writeMeta(id, data)
			}
			return err
		}))
	}
	return g.Wait()
}

// writeMeta writes a copy. If the disk fails, it keeps the copy in memory and returns the error.
func (s *localStore) writeMeta(id ulid.ULID, data []byte) error {
	if err := s.write(metaFormat(), s.metaDir(), documentName(id), data, false); err != nil {
		s.memory.put(id, data)
		return err
	}
	s.memory.remove(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsynced = append(s.unsynced, id)
	return nil
}

// syncMetas makes the saved copies survive a crash of the machine. Until then, a crash may leave a
// copy torn, which its checksum shows, or missing. It syncs many copies at once, after the view was
// published.
func (s *localStore) syncMetas(concurrency int) error {
	s.mu.Lock()
	ids := s.unsynced
	s.unsynced = nil
	s.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	g := errgroup.Group{}
	g.SetLimit(concurrency)
	for _, id := range ids {
		g.Go(func() error {
			if err := syncFile(s.metaDir(), documentName(id)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil // was removed
		})
	}
	return errors.Join(g.Wait(), s.metaDir().Sync())
}

// syncFile syncs a file, including data written through other descriptors.
func syncFile(dir localfs.Dir, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeMeta removes the copy of a block's meta.json, if there is one.
func (s *localStore) removeMeta(id ulid.ULID) error {
	s.memory.remove(id)
	if s.dir.IsZero() {
		return nil
	}
	if err := s.metaDir().Remove(documentName(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeMetas removes the copies of all blocks for which keep returns false, and returns the blocks
// with copies left on disk, or still to be written.
func (s *localStore) removeMetas(
	keep func(ulid.ULID) bool,
) (left map[ulid.ULID]struct{}, err error) {
	s.memory.retain(keep)
	if s.dir.IsZero() {
		return nil, nil
	}
	names, err := s.metaDir().Names()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	left = make(map[ulid.ULID]struct{}, len(names))
	s.mu.Lock()
	for id := range s.unwritten {
		left[id] = struct{}{}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		name, ok := strings.CutSuffix(name, ".json")
		id, isBlock := parseBlockID(name)
		if !ok || !isBlock {
			continue
		}
		if keep(id) {
			left[id] = struct{}{}
			continue
		}
		if err := s.removeMeta(id); err != nil {
			errs = append(errs, err)
		}
	}
	return left, errors.Join(errs...)
}

// saved is the result of a complete sync, for a start without the bucket.
type saved struct {
	At     time.Time    `json:"at"`
	Blocks []savedBlock `json:"blocks"`
}

type savedBlock struct {
	ID ulid.ULID `json:"id"`
	// Checked means that the deletion mark was looked up.
	Checked bool `json:"checked,omitempty"`
	// Marked and DeletionTime (seconds since 1970) are the result.
	Marked       bool  `json:"marked,omitempty"`
	DeletionTime int64 `json:"deletion_time,omitempty"`
	// MetaModified and MarkModified are when the objects last changed, zero if the listing does not
	// state it.
	MetaModified time.Time `json:"meta_modified,omitzero"`
	MarkModified time.Time `json:"mark_modified,omitzero"`
}

// saved returns the last saved result, fs.ErrNotExist if there is none.
func (s *localStore) saved() (saved, error) {
	var v saved
	if s.dir.IsZero() {
		return v, fs.ErrNotExist
	}
	data, err := savedFormat().Read(s.dir, savedName, maxSavedSize)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return saved{}, fmt.Errorf("%s: %w: %w", savedName, sealed.ErrDamaged, err)
	}
	return v, nil
}

// putSaved writes the result of a sync. INVARIANT: the copies of the blocks that it lists are
// synced first.
func (s *localStore) putSaved(v saved, concurrency int) error {
	if s.dir.IsZero() {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.syncMetas(concurrency); err != nil {
		return err
	}
	return s.write(savedFormat(), s.dir, savedName, data, true)
}
