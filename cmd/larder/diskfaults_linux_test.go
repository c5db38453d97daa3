package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"larder/internal/disktest"
)

// long reports whether tests try every step, which takes minutes instead of seconds.
func long() bool { return os.Getenv("LARDER_LONG") != "" }

// command returns the command of a process on a data directory.
func (d *disk) command(ctx context.Context, data string) *exec.Cmd {
	return larder(ctx, nil, append([]string{
		"store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--objstore.config=" + folder(d.bucket), "--data-dir=" + data, "--drain-delay=0s",
		"--sync-block-duration=100ms",
	}, d.args...)...)
}

// inject starts a process on a data directory whose system calls fail.
func (d *disk) inject(data string, faults ...string) *process {
	d.t.Helper()
	return launch(d.t, func(ctx context.Context) *exec.Cmd {
		cmd := d.command(ctx, data)
		disktest.Inject(d.t, cmd, faults...)
		return cmd
	})
}

// TestDiskFails makes system calls on the local disk slow or fail while a process runs, including
// its start. Only headers are read with pread64; the bucket, a folder, is read with read.
func TestDiskFails(t *testing.T) {
	d := newDisk(t)
	faults := []string{
		"pread64:error=EIO:when=4+", // the first three are the loader's
		"fsync:error=EIO", "flock:error=ENOLCK",
		// microseconds
		"fsync,fdatasync,rename,renameat,renameat2,pread64,mkdirat,unlinkat:delay_enter=30000",
	}
	if long() {
		faults = append(
			faults, "pread64:error=EIO:when=4+5", "rename,renameat,renameat2:error=EIO",
			"mkdirat:error=EIO", "unlinkat:error=EIO", "ftruncate,fdatasync:error=EIO",
		)
	}
	for _, fault := range faults {
		t.Run(strings.NewReplacer(",", "+", ":", " ").Replace(fault), func(t *testing.T) {
			d := &disk{t: t, bucket: d.bucket, want: d.want}
			data := t.TempDir()
			p := d.inject(data, fault)
			p.listens()
			p.await("readiness changed.*ready=true")
			for range 3 {
				p.same(d.want)
			}
			if strings.HasPrefix(fault, "pread64") &&
				p.counter("larder_header_local_failures_total") == 0 {
				t.Error("no failure was counted")
			}
			p.stop()
			p = d.start(data) // the disk is well again
			p.same(d.want)
			d.awaitHeaders(data)
			p.stop()
			d.wantWhole(data)
		})
	}
}

// TestKilledAtAnyWrite: a process is killed as it makes the n-th call of a kind, for n = 1, 2, 3
// and so on, from its first start with nothing on disk to its last snapshot. Each time the next
// process starts, answers right, finds nothing damaged and leaves nothing behind.
func TestKilledAtAnyWrite(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	// The short form tries every third call that makes files durable, and some of the others.
	calls := []struct {
		name        string
		short, long int // n grows by so much
	}{
		{
			"fsync",
			3,
			1,
		}, {"rename,renameat,renameat2", 3, 1}, {"mkdirat", 2, 1}, {"unlinkat", 2, 1},
		{"flock", 3, 1},
		{"write", 60, 3}, {"openat", 100, 5},
	}
	for _, call := range calls {
		kills, step := 0, call.short
		if long() {
			step = call.long
		}
		for n := 1; ; n += step {
			data := filepath.Join(t.TempDir(), "data")
			if call.name == "unlinkat" { // there is something to remove
				d.leftovers(data)
			}
			if !d.killedAt(data, call.name, n) {
				break
			}
			kills++
			p := d.start(data)
			p.same(d.want)
			for _, name := range []string{"larder_catalog_damaged_copies_total",
				`larder_header_rebuilds_total{reason="damaged"}`} {
				if _, metrics := p.get("/metrics"); strings.Contains(metrics, name) &&
					p.counter(name) > 0 {
					t.Errorf("%s is %d", name, p.counter(name))
				}
			}
			d.awaitHeaders(data)
			p.stop()
			d.wantWhole(data)
			if t.Failed() {
				t.Fatalf("killed at %s %d", call.name, n)
			}
		}
		t.Logf("%s: killed %d times", call.name, kills)
		if kills == 0 {
			t.Errorf("no process was killed at %s", call.name)
		}
	}
}

// leftovers adds files that another process may have left to a data directory: unfinished files,
// and the header of a removed block.
func (d *disk) leftovers(data string) {
	d.t.Helper()
	gone := "01KE5YP760SSB9E76Y6NC9FKZZ"
	for _, name := range []string{"catalog.json.tmp-1", "warm.snapshot.tmp-1",
		"meta/" + gone + ".json.tmp-1", "headers/" + gone + ".header.1.tmp",
		"headers/" + gone + ".header"} {
		path := filepath.Join(data, "larder", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

// killedAt runs a process from its start over requests to its end, and reports whether it was
// killed at the n-th call.
func (d *disk) killedAt(data, call string, n int) bool {
	d.t.Helper()
	p := d.inject(data, fmt.Sprintf("%s:signal=KILL:when=%d", call, n))
	ready := false
	var rpc string
	for p.lines.Scan() {
		line := p.lines.Text()
		p.seen = append(p.seen, line)
		if strings.Contains(line, "serving gRPC") {
			rpc = line[strings.LastIndexByte(line, '=')+1:]
		}
		if ready = strings.Contains(line, "ready=true"); ready {
			break
		}
	}
	if ready {
		p.dial(rpc)
		if got, err := p.answer(); err == nil && got != d.want {
			d.t.Errorf("%s %d: got %q, want %q", call, n, got, d.want)
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && err != os.ErrProcessDone {
			d.t.Fatal(err)
		}
	}
	p.exit()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() && status.ExitStatus() != 0 {
		d.t.Errorf("%s %d: exit code %d", call, n, status.ExitStatus())
	}
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}
