package shard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

func TestStateIsKept(t *testing.T) {
	path := t.TempDir()
	dir := localfs.At(path)
	if _, err := LoadState(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v, want fs.ErrNotExist", err)
	}
	zones := []string{"a", "b"}
	want := State{
		Previous:  Config{Epoch: 1, Count: 2, Zones: zones},
		Current:   Config{Epoch: 2, Count: 3, Zones: zones},
		Next:      Config{Epoch: 5, Count: 4, Zones: zones},
		Committed: true, Forced: []ID{{Zone: "b", Ordinal: 3}}, Lost: true,
	}
	if err := SaveState(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadState(dir); err != nil || !got.equal(want) {
		t.Errorf("loaded %+v, %v, want %+v", got, err, want)
	}
	data, err := os.ReadFile(filepath.Join(path, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string][]byte{
		"a changed byte":   []byte(strings.Replace(string(data), `"count":3`, `"count":4`, 1)),
		"half of the file": data[:len(data)/2],
		"an unknown field": stateFormat().Seal([]byte(`{"more":1}`)),
		"no epoch":         stateFormat().Seal([]byte(`{}`)),
		"a count of 0":     stateFormat().Seal([]byte(`{"current":{"epoch":1,"zones":["a"]}}`)),
		"epochs that go down": stateFormat().Seal([]byte(`{"current":{"epoch":2,"count":1,` +
			`"zones":["a"]},"next":{"epoch":2,"count":2,"zones":["a"]}}`)),
	} {
		if err := os.WriteFile(filepath.Join(path, stateFile), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := LoadState(dir); !errors.Is(err, sealed.ErrDamaged) {
			t.Errorf("with %s: %+v, %v, want ErrDamaged", what, s, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	f := func(want string, c Config) {
		t.Helper()
		err := c.Validate()
		if want == "" && err != nil || want != "" &&
			(err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	f("", Config{Epoch: 1, Count: 1, Zones: []string{"a"}})
	f("epoch is 0", Config{Count: 1, Zones: []string{"a"}})
	f("count is 0", Config{Epoch: 1, Zones: []string{"a"}})
	f("count is 1025", Config{Epoch: 1, Count: 1025, Zones: []string{"a"}})
	f("no zones", Config{Epoch: 1, Count: 1})
	f("no name", Config{Epoch: 1, Count: 1, Zones: []string{""}})
	f("not sorted", Config{Epoch: 1, Count: 1, Zones: []string{"b", "a"}})
	f("not unique", Config{Epoch: 1, Count: 1, Zones: []string{"a", "a"}})
}
