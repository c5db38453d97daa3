package dataset

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
)

// indexVersionAt is the offset of the format version in an index file, after four bytes of magic.
const indexVersionAt = 4

// SetIndexV3 changes a block's index to format version 3, which differs from version 2 only in the
// version byte; no checksum covers that. Blocks are written with version 2.
func SetIndexV3(blockDir string) (err error) {
	f, err := os.OpenFile(filepath.Join(blockDir, "index"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	var version [1]byte
	if _, err := f.ReadAt(version[:], indexVersionAt); err != nil {
		return err
	}
	if version[0] != 2 {
		return fmt.Errorf("%s has format version %d, not 2", f.Name(), version[0])
	}
	_, err = f.WriteAt([]byte{3}, indexVersionAt)
	return err
}

//go:embed testdata/index_format_v1
var v1Files embed.FS

// WriteV1 writes a block with an index of format version 1 into dir, the root of a bucket: 102
// series of one sample each, with the given external labels. See testdata/README.md.
func WriteV1(dir string, external labels.Labels) (*Meta, error) {
	files, err := fs.Sub(v1Files, "testdata/index_format_v1")
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(files, "meta.json")
	if err != nil {
		return nil, err
	}
	var m Meta
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	blockDir := filepath.Join(dir, m.ULID.String())
	if err := os.MkdirAll(filepath.Join(blockDir, "chunks"), 0o777); err != nil {
		return nil, err
	}
	for _, name := range []string{"chunks/000001", "index"} {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(blockDir, filepath.FromSlash(name))
		if err := os.WriteFile(file, data, 0o666); err != nil {
			return nil, err
		}
	}
	b := Block{ID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime, Labels: external}
	return b.writeMeta(blockDir, m.Stats, 0)
}
