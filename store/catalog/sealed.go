package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// sealVersion is the version of the files this package writes. A file of another version is not read.
const sealVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is in the chain of the error of a local file that does not verify.
var errDamaged = errors.New("damaged")

// sealLine is the first line of a file: what it is, and what the payload must be.
func sealLine(kind string, payload []byte) string {
	return fmt.Sprintf("larder-%s %d %d %08x\n", kind, sealVersion, len(payload), crc32.Checksum(payload, castagnoli))
}

// seal returns the payload under its first line.
func seal(kind string, payload []byte) []byte {
	return append([]byte(sealLine(kind, payload)), payload...)
}

// unseal returns the payload of a file of the given kind, aliasing data, if the first line is exactly what seal writes
// for it.
func unseal(kind string, data []byte) ([]byte, error) {
	line, payload, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no first line", errDamaged)
	}
	if want := sealLine(kind, payload); string(line)+"\n" != want {
		return nil, fmt.Errorf("%w: first line is %.80q, the content asks for %q", errDamaged, line, want)
	}
	return payload, nil
}

// writeSealed replaces the file at path in one step: a reader, or a process started after a crash, finds the old file,
// the new one, or (without sync, after a crash of the machine) one that does not verify.
func writeSealed(path, kind string, payload []byte, sync bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tempPattern)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Best effort: err says what went wrong, and removeTemps removes what is left.
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(seal(kind, payload)); err != nil {
		return err
	}
	if sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readSealed returns the payload of the file at path: fs.ErrNotExist if there is none, errDamaged if it does not verify.
func readSealed(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	payload, err := unseal(kind, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return payload, nil
}

// tempPattern marks files that were never finished; removeTemps deletes them.
const tempPattern = ".tmp-*"

// removeTemps removes what a process that was killed while it wrote left behind.
func removeTemps(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+tempPattern))
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
