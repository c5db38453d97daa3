package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a unit of one file. Loading the content "bad" fails, "worse" panics.
type fixture struct {
	t       *testing.T
	file    string
	loads   chan string // the content of each load
	reg     *prometheus.Registry
	r       *Reloader
	stopped chan struct{}
}

func start(t *testing.T, file string, recheck time.Duration) *fixture {
	t.Helper()
	f := &fixture{
		t:       t,
		file:    file,
		loads:   make(chan string, 16),
		reg:     prometheus.NewRegistry(),
		stopped: make(chan struct{}),
	}
	f.r = New(
		[]Unit{{Kind: "test", Files: func() []string { return []string{file} }, Load: f.load}},
		Options{Settle: time.Millisecond, Recheck: recheck, Registerer: f.reg},
	)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		f.r.Run(ctx)
		close(f.stopped)
	}()
	t.Cleanup(func() {
		stop()
		<-f.stopped
	})
	return f
}

func (f *fixture) load(context.Context) error {
	b, err := os.ReadFile(f.file)
	f.loads <- string(b)
	if err != nil {
		return err
	}
	switch string(b) {
	case "bad":
		return errors.New("bad")
	case "worse":
		panic("worse")
	}
	return nil
}

// expect waits for a load of a content. It ignores loads of half written files.
func (f *fixture) expect(want string) {
	f.t.Helper()
	var got []string
	late := time.After(30 * time.Second)
	for {
		select {
		case s := <-f.loads:
			if s == want {
				return
			}
			got = append(got, s)
		case <-late:
			f.t.Fatalf("got loads of %q, want one of %q", got, want)
		}
	}
}

// successful waits for the metric, which is set after the load.
func (f *fixture) successful(want string) {
	f.t.Helper()
	want = "larder_config_last_reload_successful{kind=\"test\"} " + want + "\n"
	const name = "larder_config_last_reload_successful"
	help := "# HELP " + name + " 1 if the last reload of this configuration succeeded, " +
		"0 if it failed and the previous configuration is still in use.\n" +
		"# TYPE " + name + " gauge\n"
	f.r.Reload() // this load begins after the metric of the previous one was set
	<-f.loads
	if err := testutil.GatherAndCompare(f.reg, strings.NewReader(help+want), name); err != nil {
		f.t.Error(err)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFileChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf.yml")
	put(t, file, "one")
	f := start(t, file, time.Hour)
	f.expect("one") // the load at the start

	put(t, file, "two")
	f.expect("two")
	put(t, file+".tmp", "three")
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
	f.expect("three")
	f.successful("1")

	put(t, file, "bad")
	f.expect("bad")
	f.successful("0")
	put(t, file, "worse") // a panic counts as an error
	f.expect("worse")
	f.successful("0")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	f.expect("")
	f.successful("0")
	put(t, file, "four")
	f.expect("four")
	f.successful("1")
}

// TestKubernetesVolume: a ConfigMap or Secret is a directory of links through ..data, and
// Kubernetes swaps that link.
func TestKubernetesVolume(t *testing.T) {
	dir := t.TempDir()
	publish := func(name, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name, "conf.yml"), content)
		link(t, name, filepath.Join(dir, "..data"))
	}
	publish("..2026_01", "one")
	file := filepath.Join(dir, "conf.yml")
	if err := os.Symlink(filepath.Join("..data", "conf.yml"), file); err != nil {
		t.Fatal(err)
	}
	f := start(t, file, time.Hour)
	f.expect("one")
	for _, content := range []string{"two", "three", "four"} {
		publish("..2026_"+content, content)
		f.expect(content)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..2026_01")); err != nil {
		t.Fatal(err)
	}
	f.successful("1")
}

// TestLinkElsewhere: the file is a link, and its target in another directory changes.
func TestLinkElsewhere(t *testing.T) {
	file, target := filepath.Join(t.TempDir(), "conf.yml"), filepath.Join(t.TempDir(), "real.yml")
	put(t, target, "one")
	link(t, target, file)
	f := start(t, file, time.Hour)
	f.expect("one")
	put(t, target, "two")
	f.expect("two")
	other := filepath.Join(t.TempDir(), "other.yml")
	put(t, other, "three")
	link(t, other, file)
	f.expect("three")
	put(t, other, "four") // the new target is watched too
	f.expect("four")
}

// TestWithoutNotification: the directory does not exist at first and cannot be watched.
func TestWithoutNotification(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	file := filepath.Join(dir, "conf.yml")
	f := start(t, file, 10*time.Millisecond)
	f.expect("")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, file, "one")
	f.expect("one")
}

// TestFailedLoadsAreRetried: a load may fail for a reason outside the file.
func TestFailedLoadsAreRetried(t *testing.T) {
	loads := make(chan int, 16)
	n := 0
	ctx, stop := context.WithCancel(context.Background())
	unit := Unit{
		Kind:  "test",
		Files: func() []string { return nil },
		Load: func(context.Context) error {
			n++
			loads <- n
			if n < 3 {
				return errors.New("not yet")
			}
			return nil
		},
	}
	r := New([]Unit{unit}, Options{Recheck: time.Millisecond})
	stopped := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(stopped)
	}()
	for range 3 {
		<-loads
	}
	r.Reload() // triggers the next load: a recheck does not load units that succeeded
	<-loads
	stop()
	<-stopped
	if len(loads) > 0 {
		t.Errorf("got %d loads, want 4", n)
	}
}

// TestUnchangedFilesAreNotLoaded: neither changes of other files in the directory nor a rewrite
// with the same content cause a load. Reload does.
func TestUnchangedFilesAreNotLoaded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "conf.yml")
	put(t, file, "one")
	f := start(t, file, time.Hour)
	f.expect("one")
	put(t, filepath.Join(dir, "other"), "x")
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "another")); err != nil {
		t.Fatal(err)
	}
	put(t, file+".tmp", "one")
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
	f.r.Reload()
	f.expect("one")
	put(t, file, "two")
	for got := range f.loads {
		if got == "two" {
			return
		}
		if got != "" { // WriteFile truncates first
			t.Fatalf("got an unexpected load of %q", got)
		}
	}
}

// TestStopEndsALoad: a load that waits does not delay the end of the process, and does not count as
// failed.
func TestStopEndsALoad(t *testing.T) {
	reg := prometheus.NewRegistry()
	loading := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	unit := Unit{
		Kind:  "test",
		Files: func() []string { return nil },
		Load: func(ctx context.Context) error {
			close(loading)
			<-ctx.Done()
			return ctx.Err()
		},
	}
	r := New([]Unit{unit}, Options{Registerer: reg})
	stopped := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(stopped)
	}()
	<-loading
	stop()
	<-stopped
	if got := testutil.ToFloat64(r.successful); got != 1 {
		t.Errorf("got success %v", got)
	}
}
