package main

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
)

// TestInterruptedStarts stops or kills a process at several moments of its start. The next process
// starts. A process that is stopped before it serves exits at once.
func TestInterruptedStarts(t *testing.T) {
	d := newDisk(t)
	data := filepath.Join(t.TempDir(), "data")
	rounds := 12
	if long() {
		rounds = 200
	}
	r := rand.New(rand.NewPCG(5, 5))
	for round := range rounds {
		sig := []os.Signal{syscall.SIGTERM, syscall.SIGKILL}[r.IntN(2)]
		after := time.Duration(r.Int64N(int64(300 * time.Millisecond)))
		p := launch(t, func(ctx context.Context) *exec.Cmd { return d.command(ctx, data) })
		<-time.After(after)
		p.signal(sig)
		p.exit()
		ended := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		// A signal that comes before the process listens to signals ends it.
		if ended.Signaled() && ended.Signal() != sig ||
			!ended.Signaled() && ended.ExitStatus() != 0 {
			t.Fatalf("round %d: %s after %s: %v", round, sig, after, p.cmd.ProcessState)
		}
	}
	p := d.start(data)
	p.same(d.want)
	d.awaitHeaders(data)
	p.stop()
	d.wantWhole(data)
}

// TestStartWithoutTheBucket: a process that cannot reach the bucket serves the blocks that an
// earlier one knew, says so, and fails what it cannot read, instead of answering without it.
// Without an earlier one it is not ready. Both are well once the bucket is.
func TestStartWithoutTheBucket(t *testing.T) {
	d := newDisk(t)
	faults := faultstore.New(1)
	s3, err := s3server.Start(s3server.Options{Dir: d.bucket, Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() }) // not what is tested
	start := func(data string) *process {
		t.Helper()
		return startProcess(
			t, s3.Config(), "--data-dir="+data, "--drain-delay=0s", "--sync-block-duration=100ms",
			"--warm.max-time=0s",
		)
	}
	data := t.TempDir()
	p := start(data)
	p.await("readiness changed.*ready=true")
	p.same(d.want)
	d.awaitHeaders(data)
	p.stop()

	faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied})
	none := start(t.TempDir())
	none.await("sync failed")
	if err := none.info(); status.Code(err) != codes.Unavailable {
		t.Errorf("Info of a process that knows nothing: %v", err)
	}
	if _, err := none.answer(); status.Code(err) != codes.Unavailable {
		t.Errorf("Series of a process that knows nothing: %v", err)
	}
	p = start(data)
	p.await("readiness changed.*ready=true")
	if err := p.info(); err != nil {
		t.Errorf("Info: %v", err)
	}
	if p.counter("larder_catalog_from_disk") != 1 ||
		p.counter("larder_catalog_blocks") != diskBlocks {
		t.Error("the view is not that of the process before")
	}
	if got, err := p.answer(); err == nil || status.Code(err) != codes.Aborted {
		t.Errorf("without the bucket: got %q, %v", got, err)
	}
	faults.Heal()
	for _, p := range []*process{none, p} {
		if p == none {
			p.await("readiness changed.*ready=true")
		}
		for p.counter("larder_catalog_complete") != 1 {
			<-time.After(10 * time.Millisecond)
		}
		p.same(d.want)
		p.stop()
	}
}

// TestGracePeriodEnds checks that a request whose client does not read delays the exit only for the
// grace period. New requests are rejected with a code that makes clients retry elsewhere.
func TestGracePeriodEnds(t *testing.T) {
	p := startProcess(t, folder(wideBucket(t)), "--drain-delay=0s", "--grpc-grace-period=2s")
	p.await("readiness changed.*ready=true")
	stream := p.series()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	p.await("msg=stopping")
	var err error
	for err == nil {
		_, err = p.answer() // as long as the server has not begun to refuse
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a new request: got %v, want Unavailable", err)
	}
	p.await("grace period ended, running gRPC requests are cancelled")
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	if err == io.EOF || status.Code(err) == codes.OK {
		t.Errorf("an answer that was cut short ends with %v", err)
	}
	if !strings.Contains(p.seen[len(p.seen)-1], "msg=stopped") {
		t.Errorf("the last line is %q", p.seen[len(p.seen)-1])
	}
}
