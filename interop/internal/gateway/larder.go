package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// BuildLarder returns the larder binary: the one named by LARDER_BIN, else built from the repository around this module into dir.
// root is the repository's folder.
func BuildLarder(ctx context.Context, root, dir string) (string, error) {
	if bin := os.Getenv("LARDER_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "larder")
	// larder is built as it is shipped: with its own go.mod and without this module's build tags.
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/larder")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/larder: %w\n%s", err, out)
	}
	return bin, nil
}

// Larder is a running larder process.
type Larder struct {
	Addr, HTTPAddr string
	cmd            *exec.Cmd
	exited         chan struct{}
	exitErr        error
	log            *tail
}

// StartLarder runs `larder store` over the bucket and waits until it says that it is ready. extra flags are appended.
func StartLarder(ctx context.Context, bin string, b Bucket, extra ...string) (*Larder, error) {
	if err := os.MkdirAll(b.DataDir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(b.DataDir, "bucket.yml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "type: FILESYSTEM\nconfig:\n  directory: %q\n", b.Dir), 0o644); err != nil {
		return nil, err
	}
	addrs, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	args := []string{
		"store", "--data-dir=" + filepath.Join(b.DataDir, "data"), "--objstore.config-file=" + conf,
		"--grpc-address=" + addrs[0], "--http-address=" + addrs[1], "--log.level=warn",
		"--drain-delay=0s", // nobody has to notice that it stops
	}
	if !b.MinTime.IsZero() {
		args = append(args, "--min-time="+b.MinTime.UTC().Format(time.RFC3339))
	}
	if !b.MaxTime.IsZero() {
		args = append(args, "--max-time="+b.MaxTime.UTC().Format(time.RFC3339))
	}
	l := &Larder{
		Addr: addrs[0], HTTPAddr: addrs[1], cmd: exec.Command(bin, append(args, extra...)...), exited: make(chan struct{}), log: &tail{},
	}
	l.cmd.Stdout, l.cmd.Stderr = l.log, l.log
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		l.exitErr = l.cmd.Wait()
		close(l.exited)
	}()
	if err := l.waitReady(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// waitReady asks the readiness probe until it says yes.
func (l *Larder) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, "http://"+l.HTTPAddr+"/-/ready") {
			return nil
		}
		select {
		case <-l.exited:
			return fmt.Errorf("larder exited before it was ready: %w\n%s", l.exitErr, l.log)
		case <-ctx.Done():
			return fmt.Errorf("larder is not ready: %w\n%s", ctx.Err(), l.log)
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// PID is the process's id.
func (l *Larder) PID() int { return l.cmd.Process.Pid }

// Log is the end of what the process wrote.
func (l *Larder) Log() string { return l.log.String() }

// Exited is closed once the process is gone, which before Close means that it crashed.
func (l *Larder) Exited() <-chan struct{} { return l.exited }

// Close asks the process to stop, and kills it when it does not.
func (l *Larder) Close() error {
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-l.exited:
		return nil
	case <-time.After(15 * time.Second):
		err := l.cmd.Process.Kill()
		<-l.exited
		return errors.Join(errors.New("larder did not stop within 15 s of SIGTERM"), err)
	}
}

// freePorts returns loopback addresses that nobody listens on. Somebody may take one before it is used; the gateway's start fails then.
func freePorts(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// All are held until the last is known, so that they differ.
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 16 << 10
	t.buf = append(t.buf, p...)
	if len(t.buf) > keep {
		t.buf = bytes.Clone(t.buf[len(t.buf)-keep:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
