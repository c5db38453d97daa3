package indexheader

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
	"larder/internal/panics"
)

const (
	childDirEnv  = "LARDER_TEST_HEADER_DIR"
	childStepEnv = "LARDER_TEST_HEADER_STEP"
)

// buildUntilKilled runs in the child process of TestKilled. It builds a header, and reports and
// waits at the step where it is to be killed.
func buildUntilKilled(dir string) {
	at := os.Getenv(childStepEnv)
	reached := func() {
		fmt.Println("reached", at)
		select {}
	}
	idx, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "index"))
	if err != nil {
		panic(err)
	}
	bkt := newBucket()
	src := bkt.add(1, idx)
	m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt, PartSize: 128 << 10})
	if err != nil {
		panic(err)
	}
	bkt.setFault(func(_ context.Context, g get, _ int) (io.ReadCloser, error, bool) {
		if at == "middle" && g.Off > int64(len(idx))/2 && g.Len == 128<<10 &&
			g.Off+g.Len < int64(len(idx)) {
			reached()
		}
		return nil, nil, false
	})
	m.step = func(name string) error {
		if name == at {
			reached()
		}
		return nil
	}
	_, _, err = m.Acquire(context.Background(), src)
	fmt.Println("acquired", err)
	select {}
}

// A process that is killed at any step of a build leaves no file that breaks the next process.
func TestKilled(t *testing.T) {
	small, large := tinyIndex(t), synthIndex(t, 40_000)
	for _, tc := range []struct {
		name string
		idx  []byte
		step string
		left int // temporary files
		file bool
	}{
		{"large", large, "write", 1, false}, {"large", large, "middle", 1, false},
		{"large", large, "sync", 1, false},
		{"large", large, "rename", 1, false}, {"large", large, "sync directory", 0, true},
		{"small", small, "write", 0, false}, {"small", small, "sync", 1, false},
		{"small", small, "rename", 1, false},
		{"small", small, "sync directory", 0, true},
	} {
		t.Run(tc.name+"/"+tc.step, func(t *testing.T) {
			idx := tc.idx
			model := modelOf(t, idx)
			base := t.TempDir()
			dir := filepath.Join(base, "headers")
			if err := os.WriteFile(filepath.Join(base, "index"), idx, 0o666); err != nil {
				t.Fatal(err)
			}
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), childDirEnv+"="+dir, childStepEnv+"="+tc.step)
			child.Stderr = os.Stderr
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "reached "+tc.step {
			}
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			child.Wait()

			temporary, final := 0, false
			for _, name := range headerFiles(t, dir) {
				if strings.HasSuffix(name, ".tmp") {
					temporary++
				} else {
					final = true
				}
			}
			if temporary != tc.left || final != tc.file {
				t.Fatalf("files remain: %v", headerFiles(t, dir))
			}
			bkt := newBucket()
			src := bkt.add(1, idx)
			m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
			h := acquire(t, m, src)
			if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
			if rebuilt := bkt.count() > 0; rebuilt == tc.file {
				t.Errorf("%d reads of the bucket", bkt.count())
			}
			m.waitPersisted(src)
			if names := headerFiles(t, dir); len(names) != 1 ||
				names[0] != src.ID.String()+fileSuffix {
				t.Errorf("files: %v", names)
			}
		})
	}
}

// After a failed step the header works, and there is no file.
func TestPersistFails(t *testing.T) {
	idx := tinyIndex(t)
	for _, at := range []string{"sync", "rename"} {
		dir := t.TempDir()
		bkt := newBucket()
		src := bkt.add(1, idx)
		m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
		m.step = func(name string) error {
			if name == at {
				return fmt.Errorf("no space left on device")
			}
			return nil
		}
		h := acquire(t, m, src)
		m.waitPersisted(src)
		if names := headerFiles(t, dir); len(names) != 0 {
			t.Errorf("%s: files %v", at, names)
		}
		if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// A build that panics returns an error to its waiters and leaves no file.
func TestPanickingBuildLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, synthIndex(t, 40_000))
	m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt, PartSize: 128 << 10})
	m.step = func(string) error { panic("a bug") }
	var p *panics.Error
	if _, _, err := m.Acquire(t.Context(), src); !errors.As(err, &p) {
		t.Errorf("got %v", err)
	}
	if names := headerFiles(t, dir); len(names) != 0 {
		t.Errorf("files %v", names)
	}
}

// headerFile returns the path of a block's header.
func headerFile(dir string, id ulid.ULID) string { return filepath.Join(dir, fileName(id)) }
