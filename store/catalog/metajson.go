package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// Bounds of one meta.json. Thanos has none. Each is far above what writers of blocks produce. They
// prevent that a document of maxMetaSize needs many times its size in memory.
const (
	// maxLabels bounds the number of external labels, and maxLabelText their length in the
	// document. The labels are in every series of an answer and in every Info answer.
	maxLabels    = 1000
	maxLabelText = 64 << 10
	// maxListed bounds the lists of sources and of files. A year has 4,380 blocks of two hours, for
	// each replica.
	maxListed = 1 << 17
	// maxChunkFiles bounds the files of a block's chunks/ folder. Writers begin a new file after
	// 512 MiB, so this is a block of 8 TiB.
	maxChunkFiles = 1 << 14
	// maxChunkName bounds the name of a chunk file. Writers use names of six digits.
	maxChunkName = 20
	// maxErrorText bounds the part of a document that an error repeats.
	maxErrorText = 512
)

// metaJSON has the keys of a meta.json that larder reads. It ignores unknown keys, because new
// versions of writers add some.
type metaJSON struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime *int64    `json:"minTime"`
	MaxTime *int64    `json:"maxTime"`
	Version int       `json:"version"`
	Stats   struct {
		NumSeries uint64 `json:"numSeries"`
		NumChunks uint64 `json:"numChunks"`
	} `json:"stats"`
	Compaction struct {
		Level   int        `json:"level"`
		Sources sourceList `json:"sources"`
	} `json:"compaction"`
	Thanos struct {
		Version    int        `json:"version"`
		Labels     labelTexts `json:"labels"`
		Downsample struct {
			Resolution int64 `json:"resolution"`
		} `json:"downsample"`
		Source       string      `json:"source"`
		SegmentFiles segmentList `json:"segment_files"`
		Files        fileList    `json:"files,omitzero"`
		IndexStats   struct {
			SeriesMaxSize int64 `json:"series_max_size"`
			ChunkMaxSize  int64 `json:"chunk_max_size"`
		} `json:"index_stats"`
		UploadTime time.Time `json:"upload_time"`
	} `json:"thanos"`
}

// decodeMeta decodes the document at the beginning of data. It ignores text after the document,
// same as Thanos.
func decodeMeta(data []byte, j *metaJSON) error {
	// A json.Decoder would copy the document first.
	err := json.Unmarshal(data, j)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Offset > 1 {
		if document := data[:syntax.Offset-1]; json.Valid(document) {
			err = json.Unmarshal(document, j)
		}
	}
	return err
}

// labelTexts are the external labels.
type labelTexts map[string]string

func (l *labelTexts) UnmarshalJSON(text []byte) error {
	if len(text) > maxLabelText {
		return fmt.Errorf("%w: thanos.labels has %d bytes, the limit is %d", errRefused,
			len(text), maxLabelText)
	}
	if err := json.Unmarshal(text, (*map[string]string)(l)); err != nil {
		return err
	}
	if len(*l) > maxLabels {
		return fmt.Errorf("%w: thanos.labels has %d labels, the limit is %d", errRefused,
			len(*l), maxLabels)
	}
	return nil
}

// sourceList are the sources of a block.
type sourceList []ulid.ULID

func (l *sourceList) UnmarshalJSON(text []byte) error {
	*l = (*l)[:0]
	return eachElement("compaction.sources", text, func(element []byte) error {
		var id ulid.ULID
		if err := json.Unmarshal(element, &id); err != nil {
			return err
		}
		*l = append(*l, id)
		return nil
	})
}

// fileList is the part of a list of files that larder uses: the index and the chunk files. Sizes
// are hints, because no checksum covers them and files are repaired in place. A size that no file
// can have counts as not stated.
type fileList struct {
	index  int64 // size, 0 if not stated
	chunks []numberedFile
}

func (l *fileList) UnmarshalJSON(text []byte) error {
	*l = fileList{}
	return eachElement("thanos.files", text, func(element []byte) error {
		var f struct {
			RelPath   string `json:"rel_path"`
			SizeBytes int64  `json:"size_bytes"`
		}
		if err := json.Unmarshal(element, &f); err != nil {
			return err
		}
		size := f.SizeBytes
		if size < 0 || size > maxFileSize {
			size = 0
		}
		if f.RelPath == indexFile {
			l.index = size
			return nil
		}
		if name, ok := strings.CutPrefix(f.RelPath, "chunks/"); ok {
			l.chunks = appendChunkFile(l.chunks, name, size)
		}
		return checkChunkFiles("thanos.files", l.chunks)
	})
}

// segmentList are the names of chunk files.
type segmentList []numberedFile

func (l *segmentList) UnmarshalJSON(text []byte) error {
	*l = (*l)[:0]
	return eachElement("thanos.segment_files", text, func(element []byte) error {
		var name string
		if err := json.Unmarshal(element, &name); err != nil {
			return err
		}
		*l = appendChunkFile(*l, name, 0)
		return checkChunkFiles("thanos.segment_files", *l)
	})
}

func checkChunkFiles(key string, files []numberedFile) error {
	if len(files) > maxChunkFiles {
		return fmt.Errorf("%w: %s has more than %d chunk files", errRefused, key, maxChunkFiles)
	}
	return nil
}

// eachElement calls f for the text of each element of the list under a key. Decoding the list as a
// whole could need many times the memory of its text. text must be valid JSON, like the argument of
// UnmarshalJSON. null is an empty list.
func eachElement(key string, text []byte, f func(element []byte) error) error {
	text = bytes.TrimSpace(text)
	switch {
	case string(text) == "null":
		return nil
	case len(text) < 2 || text[0] != '[':
		return fmt.Errorf("cannot unmarshal %.40q into the list %s", text, key)
	}
	n := 0
	element := func(text []byte) error {
		if n++; n > maxListed {
			return fmt.Errorf("%w: %s has more than %d entries", errRefused, key, maxListed)
		}
		return f(text)
	}
	from, depth, quoted := 1, 0, false
	end := len(text) - 1
	for i := from; i < end; i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			depth++
		case c == ']', c == '}':
			depth--
		case c == ',' && depth == 0:
			if err := element(text[from:i]); err != nil {
				return err
			}
			from = i + 1
		}
	}
	if last := text[from:end]; from > 1 || len(bytes.TrimSpace(last)) > 0 {
		return element(last)
	}
	return nil
}
