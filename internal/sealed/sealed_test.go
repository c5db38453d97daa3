package sealed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/localfs"
)

// TestAKilledWriteLeavesAWholeFile: a writer that is killed at any step leaves the old file or the
// new one.
func TestAKilledWriteLeavesAWholeFile(t *testing.T) {
	killed := errors.New("killed")
	format := Format{Kind: "test", Version: 1}
	old, cur := format.Seal([]byte("old")), format.Seal([]byte("new, and longer"))
	for stop := 0; ; stop++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		at := 0
		err := write(localfs.At(dir), "file", cur, true, func(string) error {
			if at++; at > stop {
				return killed
			}
			return nil
		})
		got, rerr := os.ReadFile(path)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if err == nil {
			if stop < 5 || !bytes.Equal(got, cur) {
				t.Errorf("after %d steps the new file is missing", stop)
			}
			return
		}
		if !errors.Is(err, killed) || !bytes.Equal(got, old) && !bytes.Equal(got, cur) {
			t.Errorf("killed at step %d: %v, left a file of %d bytes", stop, err, len(got))
		}
		// The next process can write.
		if err := write(localfs.At(dir), "file", cur, true, func(string) error {
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

func TestUnsealRejectsDamage(t *testing.T) {
	format := Format{Kind: "test", Version: 3}
	payload := []byte("a payload,\nof two lines")
	good := format.Seal(payload)
	if got, err := format.Unseal(good); err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("%q, %v", got, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if _, err := format.Unseal(bad); err == nil {
			t.Errorf("byte %d was changed, got no error", i)
		}
		if _, err := format.Unseal(good[:i]); err == nil {
			t.Errorf("cut after %d bytes, got no error", i)
		}
	}
	_, err := format.Unseal((Format{Kind: "test", Version: 4}).Seal(payload))
	if err == nil || !strings.Contains(err.Error(), "version 4") || errors.Is(err, ErrDamaged) {
		t.Errorf("another version: got %v", err)
	}
	_, err = format.Unseal((Format{Kind: "other", Version: 3}).Seal(payload))
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("another kind: got %v, want ErrDamaged", err)
	}
}

func TestFiles(t *testing.T) {
	format := Format{Kind: "test", Version: 1}
	dir := t.TempDir()
	path, at := filepath.Join(dir, "file"), localfs.At(dir)
	if _, err := format.Read(at, "file", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v, want ErrNotExist", err)
	}
	for _, payload := range []string{"", "first", "second, longer"} {
		if err := format.Write(at, "file", []byte(payload), payload != ""); err != nil {
			t.Fatal(err)
		}
		if got, err := format.Read(at, "file", 100); err != nil || string(got) != payload {
			t.Errorf("got %q, %v, want %q", got, err, payload)
		}
	}
	if _, err := format.Read(at, "file", 20); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of more than 20 bytes: got %v, want ErrDamaged", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	// A link is not followed, and the next write replaces it.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if _, err := format.Read(at, "file", 100); !errors.Is(err, ErrDamaged) {
		t.Errorf("a link: got %v, want ErrDamaged", err)
	}
	if err := format.Write(at, "file", []byte("third"), true); err != nil {
		t.Fatal(err)
	}
	if got, err := format.Read(at, "file", 100); err != nil || string(got) != "third" {
		t.Errorf("got %q, %v, want the file that replaced the link", got, err)
	}
	if err := os.Remove(path + ".away"); err != nil {
		t.Fatal(err)
	}
	// RemoveTemps removes the unfinished files of the named file only.
	for _, name := range []string{"file.tmp-1", "file.tmp-22", "other.tmp-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTemps(at, "file"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("got %v, want the file and the other temporary file", left)
	}
}

// FuzzUnseal: data that unseals is, byte for byte, its payload sealed. Sealed data unseals, and
// does not with any bit changed.
func FuzzUnseal(f *testing.F) {
	format := Format{Kind: "test", Version: 3}
	f.Add(format.Seal([]byte("payload")), uint16(4))
	f.Add(Format{Kind: "test", Version: 4}.Seal([]byte("of another version")), uint16(0))
	f.Add([]byte("larder-test 3 4294967296 00000000\n"), uint16(9))
	f.Fuzz(func(t *testing.T, data []byte, flip uint16) {
		if payload, err := format.Unseal(data); err == nil &&
			!bytes.Equal(format.Seal(payload), data) {
			t.Fatalf("%q unseals as %q, which is sealed as %q", data, payload, format.Seal(payload))
		}
		sealed := format.Seal(data)
		if payload, err := format.Unseal(sealed); err != nil || !bytes.Equal(payload, data) {
			t.Fatalf("%q comes back as %q, %v", data, payload, err)
		}
		sealed[int(flip)%len(sealed)] ^= byte(1 + flip>>8%255)
		if payload, err := format.Unseal(sealed); err == nil {
			t.Fatalf("%q unseals as %q", sealed, payload)
		}
		if payload, err := format.Unseal(sealed[:int(flip)%len(sealed)]); err == nil {
			t.Fatalf("%q, which is cut, unseals as %q", sealed, payload)
		}
	})
}
