package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"larder/internal/localfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is in the chain of the error of a file that does not verify.
var ErrDamaged = errors.New("damaged")

// ErrUnread is in the chain of the error of a file that may exist but that the disk fails to read.
var ErrUnread = errors.New("cannot be read")

// Format identifies the content of a file. Version changes with the layout of the payload.
type Format struct {
	Kind    string // without spaces
	Version int
}

// line returns the first line of a file with this payload.
func (f Format) line(payload []byte) string {
	return fmt.Sprintf(
		"larder-%s %d %d %08x\n", f.Kind, f.Version, len(payload),
		crc32.Checksum(payload, castagnoli),
	)
}

// Seal returns the first line and the payload.
func (f Format) Seal(payload []byte) []byte {
	return append([]byte(f.line(payload)), payload...)
}

// Unseal returns the payload of data, aliasing it, if the first line is exactly the one that Seal
// writes for this payload. Data of another version is an error, but not ErrDamaged.
func (f Format) Unseal(data []byte) ([]byte, error) {
	line, payload, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no first line", ErrDamaged)
	}
	version := f.Version
	start := string(line[:min(len(line), 80)])
	_, err := fmt.Sscanf(start, "larder-"+f.Kind+" %d ", &version)
	if err == nil && version != f.Version {
		return nil, fmt.Errorf("file has version %d, want %d", version, f.Version)
	}
	if want := f.line(payload); string(line)+"\n" != want {
		return nil, fmt.Errorf(
			"%w: first line is %.80q, want %q for this content", ErrDamaged, line, want,
		)
	}
	return payload, nil
}

// Files is a directory to Read from: a localfs.Dir, or a localfs.Opened for many reads.
type Files interface {
	Open(name string) (*os.File, error)
	Path(name string) string
}

// Read returns the payload of a file. The error is fs.ErrNotExist if there is no file, ErrDamaged
// if it is a link, does not verify or is longer than maxBytes, and ErrUnread if the disk fails.
func (f Format) Read(dir Files, name string, maxBytes int64) (payload []byte, err error) {
	file, err := dir.Open(name)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case errors.Is(err, localfs.ErrSpecial):
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return nil, fmt.Errorf("%w: %w", ErrUnread, err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnread, err)
	}
	if int64(len(data)) > maxBytes {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", dir.Path(name), ErrDamaged, maxBytes)
	}
	if payload, err = f.Unseal(data); err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path(name), err)
	}
	return payload, nil
}

// Write replaces a file, or a link in its place, in one step. Only the owner can read the file. A
// reader, or a process after a crash, finds the old file or the new one. Without sync, a crash of
// the machine may leave a file that does not verify.
func (f Format) Write(dir localfs.Dir, name string, payload []byte, sync bool) error {
	return write(dir, name, f.Seal(payload), sync, func(string) error { return nil })
}

// write is Write. It calls step before each part that a crash may follow. An error of step ends the
// write there, like a crash, except that the temporary file is removed.
func write(
	dir localfs.Dir, name string, data []byte, sync bool, step func(what string) error,
) (err error) {
	f, err := dir.Create(name + tempMark + "*")
	if err != nil {
		return err
	}
	temp := filepath.Base(f.Name())
	defer func() {
		if err != nil {
			// Best effort: err is the error that matters, and RemoveTemps removes the rest.
			_ = f.Close()
			_ = dir.Remove(temp)
		}
	}()
	half := len(data) / 2
	for _, part := range [][]byte{data[:half], data[half:]} {
		if err := step("write"); err != nil {
			return err
		}
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	if sync {
		if err := step("sync"); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := step("rename"); err != nil {
		return err
	}
	if err := dir.Rename(temp, name); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	if err := step("sync directory"); err != nil {
		return err
	}
	return dir.Sync()
}

// tempMark is in the names of unfinished files.
const tempMark = ".tmp-"

// RemoveTemps removes the unfinished files that a killed process left in dir, for the file of the
// given name, or for all files if name is "".
func RemoveTemps(dir localfs.Dir, name string) error {
	names, err := dir.Names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		of, _, temp := strings.Cut(n, tempMark)
		if !temp || name != "" && of != name {
			continue
		}
		if err := dir.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
