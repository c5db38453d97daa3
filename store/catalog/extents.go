package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

// extents are the sizes of a block's files as the bucket stated them in a measurement. They replace
// the sizes in meta.json, which no checksum covers. INVARIANT: they are part of the block's
// identity (Block.Content), so that no data derived from former files is used with these.
type extents struct {
	// Meta is the hash of the meta.json that the block had. Extents are ignored for another
	// meta.json.
	Meta  uint64       `json:"meta"`
	Index fileExtent   `json:"index"`
	Chunk []fileExtent `json:"chunks"`
	// Flips counts the changes of versions without a change of sizes. After maxFlips, versions are
	// ignored, because some gateways generate ETags of their own.
	Flips int `json:"flips,omitempty"`
}

// fileExtent is one file. Size is 0 and Version empty until the bucket has stated them.
type fileExtent struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Version string `json:"version,omitempty"`
}

const (
	// maxFlips is how often the versions of a block's files may change without their sizes.
	maxFlips = 3
	// maxExtentsSize bounds the local file of a block's extents. It is enough for maxChunkFiles
	// with long versions.
	maxExtentsSize = 4 << 20
)

func extentsFormat() sealed.Format { return sealed.Format{Kind: "extents", Version: 1} }

// content returns the identity of a block with these files.
func (e *extents) content() uint64 {
	b := binary.BigEndian.AppendUint64([]byte("extents 1"), e.Meta)
	for _, f := range append([]fileExtent{e.Index}, e.Chunk...) {
		for _, s := range []string{f.Name, f.Version} {
			b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
		}
		b = binary.BigEndian.AppendUint64(b, uint64(f.Size))
	}
	return xxhash.Sum64(b)
}

// applyTo returns the block with these files instead of its own.
func (e *extents) applyTo(b Block) Block {
	b.IndexSize = e.Index.Size
	b.ChunkFiles = make([]ChunkFile, 0, len(e.Chunk))
	for _, f := range e.Chunk {
		b.ChunkFiles = append(b.ChunkFiles, ChunkFile{Name: f.Name, Size: f.Size})
	}
	b.Content = e.content()
	return b
}

// matches reports whether b has files of these names and sizes.
func (e *extents) matches(b *Block) bool {
	return b.IndexSize == e.Index.Size &&
		slices.EqualFunc(b.ChunkFiles, e.Chunk, func(c ChunkFile, f fileExtent) bool {
			return c.Name == f.Name && c.Size == f.Size
		})
}

// versioned reports whether the bucket stated a version of any file.
func (e *extents) versioned() bool {
	return e.Index.Version != "" ||
		slices.ContainsFunc(e.Chunk, func(f fileExtent) bool { return f.Version != "" })
}

// after returns e merged with the extents known before, nil for none, of the block b, and whether
// that is a change. Versions that were unknown before are a change only if versions is set.
// Versions that differ from known ones are a change, because a file can be repaired without a
// change of its size, until they have flipped too often.
func (e extents) after(known *extents, b *Block, versions bool) (_ *extents, changed bool) {
	if known == nil {
		return &e, !e.matches(b) || versions && e.versioned()
	}
	if e.Flips = known.Flips; known.Flips >= maxFlips {
		e.Index.Version = ""
		for i := range e.Chunk {
			e.Chunk[i].Version = ""
		}
	}
	sameSizes := e.matches(b)
	if sameSizes && e.Index.Version == known.Index.Version && slices.Equal(e.Chunk, known.Chunk) {
		return known, false
	}
	if sameSizes {
		e.Flips++
	}
	return &e, true
}

// known returns the known files of a block, measured or from meta.json.
func (c *Catalog) known(b *Block) extents {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.extents[b.ID]; e != nil && e.Meta == b.Meta {
		return *e
	}
	e := extents{Meta: b.Meta, Index: fileExtent{Name: indexFile, Size: b.IndexSize}}
	for _, f := range b.ChunkFiles {
		e.Chunk = append(e.Chunk, fileExtent{Name: f.Name, Size: f.Size})
	}
	return e
}

// redescribed returns the blocks with their measured files. It returns the same slice if nothing
// changes. mu must be held.
func (c *Catalog) redescribed(blocks []*Block) []*Block {
	if len(c.extents) == 0 {
		return blocks
	}
	cloned := false
	for i, b := range blocks {
		e := c.extents[b.ID]
		if e == nil || e.Meta != b.Meta || e.content() == b.Content {
			continue
		}
		if !cloned {
			blocks, cloned = slices.Clone(blocks), true
		}
		blocks[i] = c.numbers.block(e.applyTo(*b))
	}
	return blocks
}

// learn records what the bucket stated about the files of b. It reports whether that is a change;
// then it has published a new block in place of b.
func (c *Catalog) learn(b *Block, found extents, versions bool) (changed bool) {
	c.mu.Lock()
	known := c.extents[b.ID]
	if known != nil && known.Meta != b.Meta {
		known = nil
	}
	e, changed := found.after(known, b, versions)
	if changed {
		c.extents[b.ID] = e
	}
	c.mu.Unlock()
	if !changed {
		return false
	}
	log, what := c.log.Warn, "files of a block may have changed, reading the block again"
	if !b.Sized() {
		log, what = c.log.Info, "measured the files of a block"
	}
	log(what, "block", b.ID, "index_bytes", e.Index.Size, "index_bytes_before", b.IndexSize,
		"chunk_files", chunkSizes(e.applyTo(*b).ChunkFiles),
		"chunk_files_before", chunkSizes(b.ChunkFiles))
	if err := c.local.putExtents(b.ID, e); err != nil {
		c.diskFailed("cannot save the file sizes of a block", err, "block", b.ID)
	}
	defer c.notify()
	c.mu.Lock()
	defer c.mu.Unlock()
	// Another measurement may have published this one's result with its own.
	if old := c.view.Load(); old.ByID(b.ID) != nil && old.ByID(b.ID).Content == b.Content {
		c.setView(old, old.Blocks, old.Ready, old.FromDisk)
	}
	return true
}

// chunkSizes formats the sizes of the first few chunk files for the log.
func chunkSizes(files []ChunkFile) string {
	const limit = 4
	var s []string
	for _, f := range files[:min(len(files), limit)] {
		s = append(s, fmt.Sprintf("%s:%d", f.Name, f.Size))
	}
	if n := len(files) - limit; n > 0 {
		s = append(s, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(s, " ")
}

// forgetExtents forgets the extents of blocks for which keep returns false.
func (c *Catalog) forgetExtents(keep func(ulid.ULID) bool) {
	c.mu.Lock()
	var gone []ulid.ULID
	for id := range c.extents {
		if !keep(id) {
			gone = append(gone, id)
			delete(c.extents, id)
		}
	}
	c.mu.Unlock()
	for _, id := range gone {
		if err := c.local.removeExtents(id); err != nil {
			c.diskFailed("cannot remove the file sizes of a block", err, "block", id)
		}
	}
}

func (s *localStore) extentsDir() localfs.Dir { return s.dir.Sub("extents") }

// putExtents saves the extents of a block.
func (s *localStore) putExtents(id ulid.ULID, e *extents) error {
	if s.dir.IsZero() {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.write(extentsFormat(), s.extentsDir(), documentName(id), data, true)
}

func (s *localStore) removeExtents(id ulid.ULID) error {
	if s.dir.IsZero() {
		return nil
	}
	if err := s.extentsDir().Remove(documentName(id)); err != nil &&
		!errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// allExtents returns the extents that earlier processes saved. It omits files that do not verify;
// their blocks are measured again.
func (s *localStore) allExtents() (all map[ulid.ULID]*extents, err error) {
	all = map[ulid.ULID]*extents{}
	if s.dir.IsZero() {
		return all, nil
	}
	names, err := s.extentsDir().Names()
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	var errs []error
	for _, name := range names {
		name, ok := strings.CutSuffix(name, ".json")
		id, isBlock := parseBlockID(name)
		if !ok || !isBlock {
			continue
		}
		data, err := extentsFormat().Read(s.extentsDir(), documentName(id), maxExtentsSize)
		var e extents
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sizes of the files of block %s: %w", id, err))
			continue
		}
		all[id] = &e
	}
	return all, errors.Join(append(errs, err)...)
}
