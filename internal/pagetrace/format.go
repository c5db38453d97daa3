package pagetrace

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"
)

// magic is the beginning of a file. Its last byte before the newline is the version.
const magic = "LRDPGT1\n"

// all is the threshold at which every page is in the trace.
const all = math.MaxUint64

// maxHeader bounds the length of a header in bytes.
const maxHeader = 1 << 20

// Header describes a trace.
type Header struct {
	Start  time.Time `json:"start"`
	Caches []Cache   `json:"caches"`
}

// Cache is a cache whose accesses are recorded. Sizes are in bytes, 0 for a tier that is not there.
type Cache struct {
	Kind        string `json:"kind"` // index or chunks
	PageBytes   int64  `json:"page_bytes"`
	MemoryBytes int64  `json:"memory_bytes"`
	DiskBytes   int64  `json:"disk_bytes"`
	// DiskSecondUse says that the disk keeps a page from its second use on.
	DiskSecondUse bool `json:"disk_second_use"`
}

// Fetch is one record: pages of one object.
type Fetch struct {
	// At is the time since the beginning of the trace.
	At time.Duration
	// Cache is the index in Header.Caches.
	Cache  int
	Object uint64
	Pages  []int64 // ascending
}

// maxCaches is the number of caches that a record can name.
const maxCaches = 2

// encodeHead returns the beginning of a file.
func encodeHead(threshold uint64, h *Header) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint64([]byte(magic), threshold)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), nil
}

// appendFetch encodes a record. passed is the time since the last one.
func appendFetch(dst []byte, passed time.Duration, cache int, object uint64, pages []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(max(passed.Milliseconds(), 0)))
	dst = binary.AppendUvarint(dst, uint64(len(pages))<<1|uint64(cache))
	dst = binary.AppendUvarint(dst, object)
	last := int64(0)
	for _, no := range pages {
		dst = binary.AppendUvarint(dst, uint64(no-last))
		last = no
	}
	return dst
}

// hash spreads the key of a page over 64 bits (the finalizer of splitmix64).
func hash(cache int, object uint64, no int64) uint64 {
	k := object<<27 ^ uint64(no)<<1 ^ uint64(cache)
	k += 0x9e3779b97f4a7c15
	k = (k ^ k>>30) * 0xbf58476d1ce4e5b9
	k = (k ^ k>>27) * 0x94d049bb133111eb
	return k ^ k>>31
}

// sample returns the pages whose hash is at most the threshold. It overwrites pages.
func sample(threshold uint64, cache int, object uint64, pages []int64) []int64 {
	if threshold == all {
		return pages
	}
	kept := pages[:0]
	for _, no := range pages {
		if hash(cache, object, no) <= threshold {
			kept = append(kept, no)
		}
	}
	return kept
}

// Reader reads a trace.
type Reader struct {
	Header Header

	r         *bufio.Reader
	threshold uint64
	at        time.Duration
	fetch     Fetch
}

// NewReader reads the header of a trace.
func NewReader(r io.Reader) (*Reader, error) {
	t := &Reader{r: bufio.NewReaderSize(r, 1<<16)}
	var fixed [len(magic) + 12]byte
	if _, err := io.ReadFull(t.r, fixed[:]); err != nil {
		return nil, fmt.Errorf("not a page trace: %w", err)
	}
	if !bytes.HasPrefix(fixed[:], []byte(magic)) {
		return nil, errors.New("not a page trace that this larder can read")
	}
	t.threshold = binary.LittleEndian.Uint64(fixed[len(magic):])
	n := binary.LittleEndian.Uint32(fixed[len(magic)+8:])
	if n > maxHeader {
		return nil, fmt.Errorf("page trace: a header of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(t.r, text); err != nil {
		return nil, fmt.Errorf("page trace: header: %w", err)
	}
	if err := json.Unmarshal(text, &t.Header); err != nil {
		return nil, fmt.Errorf("page trace: header: %w", err)
	}
	if n := len(t.Header.Caches); n == 0 || n > maxCaches {
		return nil, fmt.Errorf("page trace: %d caches, want 1 or %d", n, maxCaches)
	}
	return t, nil
}

// Rate is the part of all pages whose accesses are in the trace.
func (t *Reader) Rate() float64 { return float64(t.threshold) / all }

// Sample lowers the rate to at most rate: Next leaves further pages out.
func (t *Reader) Sample(rate float64) {
	if rate < t.Rate() {
		t.threshold = uint64(rate * all)
	}
}

// Next returns the next fetch with at least one sampled page, and io.EOF at the end. The fetch is
// valid until the next call.
func (t *Reader) Next() (*Fetch, error) {
	for {
		if err := t.next(); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return nil, err
		}
		f := &t.fetch
		f.Pages = sample(t.threshold, f.Cache, f.Object, f.Pages)
		if len(f.Pages) > 0 {
			return f, nil
		}
	}
}

// next reads a record.
func (t *Reader) next() error {
	passed, err := binary.ReadUvarint(t.r)
	if err != nil {
		return err
	}
	var n, object uint64
	for _, v := range []*uint64{&n, &object} {
		if *v, err = t.inside(); err != nil {
			return err
		}
	}
	t.at += time.Duration(passed) * time.Millisecond
	f := &t.fetch
	f.At, f.Cache, f.Object, f.Pages = t.at, int(n&1), object, f.Pages[:0]
	if f.Cache >= len(t.Header.Caches) {
		return fmt.Errorf("page trace: a fetch of cache %d", f.Cache)
	}
	no := int64(0)
	for range n >> 1 {
		d, err := t.inside()
		if err != nil {
			return err
		}
		no += int64(d)
		f.Pages = append(f.Pages, no)
	}
	return nil
}

// inside reads a number within a record.
func (t *Reader) inside() (uint64, error) {
	v, err := binary.ReadUvarint(t.r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

// Open reads the header of a trace in a file. The caller calls stop at the end.
func Open(path string) (t *Reader, stop func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if t, err = NewReader(f); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return t, f.Close, nil
}
