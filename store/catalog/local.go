package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

const (
	savedName = "catalog.json"
	// maxShown bounds a meta.json that is shown. Its reader decodes all of it, whatever it holds.
	maxShown = 512 << 10
	// maxSavedSize is beyond what millions of blocks come to.
	maxSavedSize = 1 << 30
)

// metaFormat is that of a copy of a meta.json, savedFormat that of saved.
func metaFormat() sealed.Format  { return sealed.Format{Kind: "meta", Version: 1} }
func savedFormat() sealed.Format { return sealed.Format{Kind: "catalog", Version: 1} }

// localStore is the catalog's part of the data directory. Without a dir it keeps the meta.json of
// blocks in memory, for document alone: what is read for a sync comes from the bucket. So it does
// with those that the disk did not take.
type localStore struct {
	dir     localfs.Dir
	lockDir func() error // called before every write

	documents *documents // the account that copies are read in

	memory *packedMetas

	mu       sync.Mutex
	unsynced []ulid.ULID // copies that a crash of the machine may lose
}

func newLocal(dir localfs.Dir, lockDir func() error, account *documents) *localStore {
	if lockDir == nil {
		lockDir = func() error { return nil }
	}
	return &localStore{dir: dir, lockDir: lockDir, documents: account,
		memory: newPackedMetas(account.size)}
}

// prepare makes the directories, which must be held, and removes what a process that was killed has
// left there.
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

// write writes a file of dir, and makes dir if it is missing: another program may have removed it.
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

// documentName is what a file about a block is called in the directory of its kind.
func documentName(id ulid.ULID) string { return id.String() + ".json" }

// meta returns the copy of a block's meta.json, fs.ErrNotExist if there is none.
// It is read within the account of documents.
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

// metas returns a function like meta for many blocks, which ends with done.
func (s *localStore) metas(ctx context.Context) (read func(ulid.ULID) (*meta, error), done func()) {
	dir, err := s.metaDir().OpenDir()
	if err != nil {
		// meta says why.
		return func(id ulid.ULID) (*meta, error) { return s.meta(ctx, id) }, func() {}
	}
	return func(id ulid.ULID) (*meta, error) { return s.metaIn(ctx, dir, id) },
		func() { _ = dir.Close() } // nothing was written
}

// reservedFiles are files each of which reserves what its document takes when it is opened.
type reservedFiles struct {
	sealed.Files
	ctx       context.Context
	documents *documents
	held      *reservation // nil for nothing
}

func (r *reservedFiles) Open(name string) (*os.File, error) {
	f, err := r.Files.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		r.held, err = r.documents.reserve(r.ctx, documentCost(min(info.Size(), maxMetaSize+1<<10)))
	}
	if err != nil {
		_ = f.Close() // nothing was read or written
		return nil, err
	}
	return f, nil
}

func (r *reservedFiles) release() {
	if r.held != nil {
		r.held.release()
	}
}

// document returns a block's meta.json as it was in the bucket, fs.ErrNotExist if it is not kept.
// One that is too large to be shown is an error.
func (s *localStore) document(id ulid.ULID) ([]byte, error) {
	data, err := s.memory.get(id)
	if err != nil && !s.dir.IsZero() {
		return metaFormat().Read(s.metaDir(), documentName(id), maxShown+1<<10)
	}
	return data, err
}

// putMeta keeps the meta.json of a block as the bucket has it. After an error it is in memory.
func (s *localStore) putMeta(id ulid.ULID, data []byte) error {
	if s.dir.IsZero() {
		s.memory.put(id, data)
		return nil
	}
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

// syncMetas makes the copies that were put survive a crash of the machine. Until then one may be
// torn, which its checksum shows, or missing. It is done for many at once, and when nobody waits
// for the blocks.
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
			return nil // removed since
		})
	}
	return errors.Join(g.Wait(), s.metaDir().Sync())
}

// syncFile syncs a file. What was written through another descriptor is synced too.
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

// removeMetas removes the copies of all blocks that keep does not want, and returns those that are
// left on disk.
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

// saved is what a complete sync knew, for a start without a bucket.
type saved struct {
	At     time.Time    `json:"at"`
	Blocks []savedBlock `json:"blocks"`
}

type savedBlock struct {
	ID ulid.ULID `json:"id"`
	// Checked is whether the deletion mark was ever looked up.
	Checked bool `json:"checked,omitempty"`
	// Marked and DeletionTime (seconds since 1970) are what was found.
	Marked       bool  `json:"marked,omitempty"`
	DeletionTime int64 `json:"deletion_time,omitempty"`
	// MetaModified and MarkModified are when the objects last changed, where the bucket's listing
	// tells.
	MetaModified time.Time `json:"meta_modified,omitzero"`
	MarkModified time.Time `json:"mark_modified,omitzero"`
}

// saved returns the last complete sync of this data directory, fs.ErrNotExist if there is none.
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

// putSaved writes what a sync knew. INVARIANT: the copies of the blocks that it lists are on disk
// before it is.
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
