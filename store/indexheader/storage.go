package indexheader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
)

const (
	fileSuffix = ".header"
	// tempPattern is the end of the name of an incomplete header. INVARIANT: a file whose name ends
	// in fileSuffix is complete.
	tempPattern = fileSuffix + ".*.tmp"
)

func fileName(id ulid.ULID) string { return id.String() + fileSuffix }

// fileStorage is a header in a file. It is read with pread: a wait for the disk then blocks a
// system call, and not a processor of the scheduler as a page fault would.
type fileStorage struct {
	*os.File
	size int64
}

func (f *fileStorage) Size() int64 { return f.size }
func (f *fileStorage) heap() int64 { return 0 }

// openFile opens the file of a block's header.
func openFile(dir localfs.Dir, id ulid.ULID) (*fileStorage, error) {
	f, err := dir.Open(fileName(id))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileStorage{File: f, size: st.Size()}, nil
}

// output receives a header while it is built.
type output interface {
	io.Writer
	// finish ends the writing and returns the header for reading.
	finish() (storage, error)
	// discard drops everything. It is called instead of finish, or after finish has failed.
	discard()
}

// fileOutput writes a header under a temporary name.
type fileOutput struct {
	dir localfs.Dir
	f   *os.File
	buf *bufio.Writer
	n   int64
}

// createFile creates a file in dir. It creates dir too if another program has removed it.
func createFile(dir localfs.Dir, id ulid.ULID) (*fileOutput, error) {
	f, err := dir.Create(id.String() + tempPattern)
	if errors.Is(err, fs.ErrNotExist) {
		if err = dir.Make(); err == nil {
			f, err = dir.Create(id.String() + tempPattern)
		}
	}
	if err != nil {
		return nil, &localError{err}
	}
	// The lock tells a process that starts in the same directory that the file is being written. It
	// ends with this process.
	o := &fileOutput{dir: dir, f: f}
	if err := lockFile(f); err != nil {
		o.discard()
		return nil, &localError{err}
	}
	return o, nil
}

func (o *fileOutput) Write(b []byte) (int, error) {
	if o.buf == nil {
		o.buf = bufio.NewWriterSize(o.f, 128<<10)
	}
	n, err := o.buf.Write(b)
	o.n += int64(n)
	return n, err
}

func (o *fileOutput) finish() (storage, error) {
	if err := o.buf.Flush(); err != nil {
		return nil, &localError{err}
	}
	o.buf = nil
	return &fileStorage{File: o.f, size: o.n}, nil
}

func (o *fileOutput) discard() {
	o.f.Close()
	o.remove()
}

// tempName returns the name of the file while it is incomplete.
func (o *fileOutput) tempName() string { return filepath.Base(o.f.Name()) }

// remove removes the incomplete file. If that fails, the next start removes it.
func (o *fileOutput) remove() { _ = o.dir.Remove(o.tempName()) }

// persist syncs and names a complete header. A crash leaves either this file or the previous one.
// step is called before each step, so that tests can stop there.
func persist(o *fileOutput, dir localfs.Dir, id ulid.ULID, step func(string) error) error {
	if err := step("sync"); err != nil {
		return err
	}
	if err := o.f.Sync(); err != nil {
		return err
	}
	if err := step("rename"); err != nil {
		return err
	}
	if err := dir.Rename(o.tempName(), fileName(id)); err != nil {
		return err
	}
	if err := step("sync directory"); err != nil {
		return err
	}
	return dir.Sync()
}

// removeTemporary removes the files of interrupted builds, except those that another process is
// writing.
func removeTemporary(dir localfs.Dir) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if temp, err := filepath.Match("*"+tempPattern, name); err != nil || !temp {
			continue
		}
		f, err := dir.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed or removed by its owner
		}
		if errors.Is(err, localfs.ErrSpecial) {
			err = dir.Remove(name)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if lockFile(f) == nil {
			if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.Close()
				return err
			}
		}
		f.Close()
	}
	return nil
}

// filesIn returns the blocks with a header file in dir.
func filesIn(dir localfs.Dir) ([]ulid.ULID, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var ids []ulid.ULID
	for _, name := range names {
		name, ok := strings.CutSuffix(name, fileSuffix)
		if id, err := ulid.ParseStrict(name); ok && err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// memChunk is the number of bytes by which a header in memory grows.
const memChunk = 64 << 10

// memory is a header in memory. It is first an output and then a storage.
type memory struct {
	chunks [][]byte
	size   int64
}

func (m *memory) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if len(m.chunks) == 0 || len(m.chunks[len(m.chunks)-1]) == memChunk {
			m.chunks = append(m.chunks, make([]byte, 0, memChunk))
		}
		last := &m.chunks[len(m.chunks)-1]
		k := min(len(b), memChunk-len(*last))
		*last = append(*last, b[:k]...)
		b = b[k:]
	}
	m.size += int64(n)
	return n, nil
}

func (m *memory) finish() (storage, error) {
	// The last chunk is often mostly empty, and most headers of small blocks have no other.
	if k := len(m.chunks) - 1; k >= 0 {
		m.chunks[k] = append([]byte(nil), m.chunks[k]...)
	}
	return m, nil
}

// copyTo writes a header in memory to an unnamed file. It discards the file if that fails.
func copyTo(o *fileOutput, st storage) error {
	n, err := io.Copy(o.f, io.NewSectionReader(st, 0, st.Size()))
	o.n += n
	if err == nil && n < st.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		o.discard()
		return &localError{err}
	}
	return nil
}

func (m *memory) discard()    { m.chunks, m.size = nil, 0 }
func (m *memory) Size() int64 { return m.size }
func (m *memory) heap() int64 { return m.size }

// Close does nothing: a running look-up may still use the memory.
func (m *memory) Close() error { return nil }

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	n := 0
	for n < len(b) && off < m.size {
		c := m.chunks[off/memChunk]
		k := copy(b[n:], c[off%memChunk:])
		n += k
		off += int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
