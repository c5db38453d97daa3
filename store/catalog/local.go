package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/sealed"
)

const (
	savedName = "catalog.json"
	// maxSavedSize is beyond what millions of blocks come to.
	maxSavedSize = 1 << 30
)

// metaFormat is that of a copy of a meta.json, savedFormat that of saved.
func metaFormat() sealed.Format  { return sealed.Format{Kind: "meta", Version: 1} }
func savedFormat() sealed.Format { return sealed.Format{Kind: "catalog", Version: 1} }

// localStore is the catalog's part of the data directory. With dir "" it keeps the meta.json of blocks in memory, for document alone:
// what is read for a sync comes from the bucket.
type localStore struct {
	dir    string
	memory *packedMetas // nil with a dir
}

func openLocal(dir string) (localStore, error) {
	s := localStore{dir: dir}
	if dir == "" {
		s.memory = newPackedMetas()
		return s, nil
	}
	if err := os.MkdirAll(s.metaDir(), 0o777); err != nil {
		return s, fmt.Errorf("catalog directory: %w", err)
	}
	for _, d := range []string{dir, s.metaDir()} {
		if err := sealed.RemoveTemps(filepath.Join(d, "*")); err != nil {
			return s, fmt.Errorf("catalog directory: %w", err)
		}
	}
	return s, nil
}

func (s localStore) metaDir() string { return filepath.Join(s.dir, "meta") }

func (s localStore) metaPath(id ulid.ULID) string {
	return filepath.Join(s.metaDir(), id.String()+".json")
}

// meta returns the copy of a block's meta.json, fs.ErrNotExist if there is none.
func (s localStore) meta(id ulid.ULID) (*meta, error) {
	if s.dir == "" {
		return nil, fs.ErrNotExist
	}
	data, err := metaFormat().Read(s.metaPath(id), maxMetaSize+1<<10)
	if err != nil {
		return nil, err
	}
	return parseMeta(id, data)
}

// document returns a block's meta.json as it was in the bucket, fs.ErrNotExist if it is not kept.
func (s localStore) document(id ulid.ULID) ([]byte, error) {
	if s.dir == "" {
		return s.memory.get(id)
	}
	return metaFormat().Read(s.metaPath(id), maxMetaSize+1<<10)
}

// putMeta keeps the meta.json of a block as the bucket has it.
func (s localStore) putMeta(id ulid.ULID, data []byte) error {
	if s.dir == "" {
		s.memory.put(id, data)
		return nil
	}
	return metaFormat().Write(s.metaPath(id), data, false)
}

// removeMeta removes the copy of a block's meta.json, if there is one.
func (s localStore) removeMeta(id ulid.ULID) error {
	if s.dir == "" {
		s.memory.remove(id)
		return nil
	}
	if err := os.Remove(s.metaPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeMetas removes the copies of all blocks that keep does not want.
func (s localStore) removeMetas(keep func(ulid.ULID) bool) error {
	if s.dir == "" {
		s.memory.retain(keep)
		return nil
	}
	entries, err := os.ReadDir(s.metaDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		id, isBlock := parseBlockID(name)
		if !ok || !isBlock || keep(id) {
			continue
		}
		if err := s.removeMeta(id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
	// MetaModified and MarkModified are when the objects last changed, where the bucket's listing tells.
	MetaModified time.Time `json:"meta_modified,omitzero"`
	MarkModified time.Time `json:"mark_modified,omitzero"`
}

// saved returns the last complete sync of this data directory, fs.ErrNotExist if there is none.
func (s localStore) saved() (saved, error) {
	var v saved
	if s.dir == "" {
		return v, fs.ErrNotExist
	}
	data, err := savedFormat().Read(filepath.Join(s.dir, savedName), maxSavedSize)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return saved{}, fmt.Errorf("%s: %w: %w", savedName, sealed.ErrDamaged, err)
	}
	return v, nil
}

func (s localStore) putSaved(v saved) error {
	if s.dir == "" {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return savedFormat().Write(filepath.Join(s.dir, savedName), data, true)
}
