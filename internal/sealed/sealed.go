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

// ErrUnread is in the chain of the error of a file that is there, or may be, and
// that the disk does not give back.
var ErrUnread = errors.New("cannot be read")

// Format is what a file is. Its Version changes with the payload's layout.
type Format struct {
	Kind    string // without blanks
	Version int
}

// line is the first line of a file: what it is, and what the payload must be.
func (f Format) line(payload []byte) string {
	return fmt.Sprintf(
		"larder-%s %d %d %08x\n", f.Kind, f.Version, len(payload),
		crc32.Checksum(payload, castagnoli),
	)
}

// Seal returns the payload under its first line.
func (f Format) Seal(payload []byte) []byte {
	return append([]byte(f.line(payload)), payload...)
}

// Unseal returns the payload of what Seal has made, aliasing data, if the first
// line is exactly what Seal writes for it. One that another version has sealed
// is an error, too, but not ErrDamaged.
func (f Format) Unseal(data []byte) ([]byte, error) {
	line, payload, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no first line", ErrDamaged)
	}
	version := f.Version
	if _, err := fmt.Sscanf(string(line[:min(len(line), 80)]), "larder-"+f.Kind+" %d ", &version); err == nil &&
		version != f.Version {
		return nil, fmt.Errorf("version %d, this is version %d", version, f.Version)
	}
	if want := f.line(payload); string(line)+"\n" != want {
		return nil, fmt.Errorf(
			"%w: first line is %.80q, the content asks for %q", ErrDamaged, line, want,
		)
	}
	return payload, nil
}

// Files are where Read finds a file: a localfs.Dir, or one that was opened for many.
type Files interface {
	Open(name string) (*os.File, error)
	Path(name string) string
}

// Read returns the payload of a file: fs.ErrNotExist if there is none, ErrDamaged
// if it is a link, does not verify or has more than maxBytes, ErrUnread if the
// disk fails.
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

// Write replaces a file, or a link in its place, in one step, readable for its owner alone: a
// reader, or a process started after a crash, finds the old file, the new one,
// or (without sync, after a crash of the machine) one that does not verify.
func (f Format) Write(dir localfs.Dir, name string, payload []byte, sync bool) error {
	return write(dir, name, f.Seal(payload), sync, func(string) error { return nil })
}

// write is Write. step is called before each part of it that a crash may follow;
// an error ends it there, as a crash would, but for the temporary file.
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
			// Best effort: err says what went wrong, and RemoveTemps removes what is left.
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

// tempMark is in the names of files that were never finished; RemoveTemps deletes them.
const tempMark = ".tmp-"

// RemoveTemps removes what a process that was killed while it wrote left behind
// in dir: of the file of that name, or of all files for "".
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
