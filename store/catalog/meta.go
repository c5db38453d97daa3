package catalog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

const (
	metaFile  = "meta.json"
	markFile  = "deletion-mark.json"
	indexFile = "index"
	// chunkNameLen is the length of a chunk file's name as writers make it: 000001.
	chunkNameLen = 6
	// noCompactFile is a mark for the compactor. larder writes it on demand and never reads it.
	noCompactFile = "no-compact-mark.json"

	// maxMetaSize bounds a meta.json, in addition to Options.DocumentBytes. The largest ones in the
	// field, of blocks compacted from years of sources, have a few hundred KiB.
	maxMetaSize = 16 << 20
	// maxFileSize is larger than any file of a block. References into an index reach 64 GiB, those
	// into a chunk file 4 GiB.
	maxFileSize = 1 << 40
	// maxMarkSize bounds a deletion-mark.json, which has four short fields.
	maxMarkSize = 1 << 20
)

// errBroken is in the chain of the error of a meta.json or mark that was read but is invalid.
var errBroken = errors.New("broken")

// The sources of blocks that need no consistency delay, because they write meta.json last.
const (
	sourceCompactor       = "compactor"
	sourceCompactorRepair = "compactor.repair"
	sourceBucketRepair    = "bucket.repair"
)

// meta is a block's validated meta.json. It is immutable.
type meta struct {
	// block has every field except Number.
	block      Block
	source     string
	uploadTime time.Time             // zero if meta.json does not state it
	group      unique.Handle[string] // equal for blocks of one resolution and external label set
	bytes      int64                 // memory that meta retains
}

// parseMeta parses the meta.json of the block with the folder id. Its error is errBroken, and also
// errRefused if the document exceeds a bound. The result does not refer to data.
func parseMeta(id ulid.ULID, data []byte) (*meta, error) {
	fail := func(format string, args ...any) (*meta, error) {
		text := fmt.Sprintf(format, args...)
		return nil, fmt.Errorf("%w meta.json of block %s: %s", errBroken, id,
			text[:min(len(text), maxErrorText)])
	}
	if len(data) > maxMetaSize {
		return fail("larger than %d bytes", maxMetaSize)
	}
	var j metaJSON
	switch err := decodeMeta(data, &j); {
	case errors.Is(err, errRefused):
		return nil, refusedMeta(id, err)
	case err != nil:
		return fail("%v", err)
	}
	t := &j.Thanos
	switch {
	case j.Version != 1:
		return fail("version %d, want 1", j.Version)
	case t.Version != 0 && t.Version != 1: // the first writers left it out
		return fail("thanos.version %d, want 1", t.Version)
	case j.ULID != id:
		return fail("ulid %s belongs to another block", j.ULID)
	case j.MinTime == nil || j.MaxTime == nil:
		return fail("minTime or maxTime is missing")
	case *j.MinTime > *j.MaxTime:
		return fail("minTime %d is after maxTime %d", *j.MinTime, *j.MaxTime)
	case resolutionLevel(t.Downsample.Resolution) < 0:
		return fail(
			"thanos.downsample.resolution %d, want 0, 300000 or 3600000", t.Downsample.Resolution,
		)
	}

	hash := xxhash.Sum64(data)
	m := &meta{
		block: Block{
			ID:            id,
			Meta:          hash,
			Content:       hash,
			MinTime:       *j.MinTime,
			MaxTime:       *j.MaxTime,
			Resolution:    t.Downsample.Resolution,
			SeriesMaxSize: max(t.IndexStats.SeriesMaxSize, 0),
			ChunkMaxSize:  max(t.IndexStats.ChunkMaxSize, 0),
			NumSeries:     j.Stats.NumSeries,
			NumChunks:     j.Stats.NumChunks,
			Level:         j.Compaction.Level,
			Sources:       j.Compaction.Sources,
		},
		source:     knownSource(t.Source),
		uploadTime: t.UploadTime,
	}
	// Without sources the block must not count as covered by every other block.
	if len(m.block.Sources) == 0 {
		m.block.Sources = []ulid.ULID{id}
	}
	// Sorted for containsAll.
	slices.SortFunc(m.block.Sources, ulid.ULID.Compare)
	// Cloned to release the spare capacity.
	m.block.Sources = slices.Clone(slices.Compact(m.block.Sources))

	lb := labels.NewScratchBuilder(len(t.Labels))
	for name, value := range t.Labels {
		if name == "" {
			return fail("an external label has no name")
		}
		if value != "" { // a label with an empty value counts as absent
			lb.Add(name, value)
		}
	}
	lb.Sort()
	m.block.Labels = lb.Labels()
	m.group = unique.Make(
		strconv.FormatInt(m.block.Resolution, 10) + "@" + string(m.block.Labels.Bytes(nil)),
	)

	m.block.IndexSize = t.Files.index
	files := t.Files.chunks
	if len(files) == 0 {
		files = t.SegmentFiles
	}
	m.block.ChunkFiles = inOrder(files)
	m.bytes = m.size()
	return m, nil
}

// refusedMeta returns the error of a meta.json that exceeds a bound.
func refusedMeta(id ulid.ULID, why error) error {
	return fmt.Errorf("%w meta.json of block %s: %w", errBroken, id, why)
}

// knownSource returns a source that the catalog distinguishes, "" for any other, which may have any
// length.
func knownSource(source string) string {
	for _, s := range []string{sourceCompactor, sourceCompactorRepair, sourceBucketRepair} {
		if source == s {
			return s
		}
	}
	return ""
}

// size estimates the memory of m in bytes. It counts the labels twice because of group.
func (m *meta) size() int64 {
	n := int64(unsafe.Sizeof(*m)) + int64(cap(m.block.Sources))*int64(unsafe.Sizeof(ulid.ULID{}))
	for _, f := range m.block.ChunkFiles {
		n += int64(unsafe.Sizeof(f)) + int64(len(f.Name)) + 16
	}
	m.block.Labels.Range(func(l labels.Label) { n += 2 * int64(len(l.Name)+len(l.Value)) })
	return n
}

type numberedFile struct {
	ChunkFile
	number uint32
}

// inOrder returns the files by number. Of two files with one number it returns the one whose name
// has the usual length.
func inOrder(files []numberedFile) (out []ChunkFile) {
	if len(files) > 0 {
		out = make([]ChunkFile, 0, len(files))
	}
	usual := func(f numberedFile) int {
		if len(f.Name) == chunkNameLen {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(files, func(a, b numberedFile) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(usual(a), usual(b)))
	})
	for i, f := range files {
		if i == 0 || files[i-1].number != f.number {
			out = append(out, f.ChunkFile)
		}
	}
	return out
}

// appendChunkFile appends a file of the chunks/ folder if its name is a number. It ignores other
// files.
func appendChunkFile(dst []numberedFile, name string, size int64) []numberedFile {
	if name == "" || len(name) > maxChunkName || strings.Trim(name, "0123456789") != "" {
		return dst
	}
	n, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return dst
	}
	return append(dst, numberedFile{ChunkFile{Name: name, Size: size}, uint32(n)})
}

// parseMark parses a deletion-mark.json and returns when the block was marked, in seconds since
// 1970. Its error is errBroken. It does not compare the id inside with the folder, same as Thanos.
func parseMark(id ulid.ULID, data []byte) (deletionTime int64, err error) {
	fail := func(format string, args ...any) (int64, error) {
		text := fmt.Sprintf(format, args...)
		return 0, fmt.Errorf("%w deletion-mark.json of block %s: %s", errBroken, id,
			text[:min(len(text), maxErrorText)])
	}
	if len(data) > maxMarkSize {
		return fail("larger than %d bytes", maxMarkSize)
	}
	var j struct {
		Version      int   `json:"version"`
		DeletionTime int64 `json:"deletion_time"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return fail("%v", err)
	}
	if j.Version != 1 {
		return fail("version %d, want 1", j.Version)
	}
	// A time beyond the range of time.Duration would overflow when it is compared.
	if j.DeletionTime < 0 || j.DeletionTime > math.MaxInt64/int64(time.Second) {
		return fail("deletion_time %d", j.DeletionTime)
	}
	return j.DeletionTime, nil
}
