package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is the larder that is tested.
type process struct {
	cmd     *exec.Cmd
	grpc    string // addresses
	http    string
	cgroup  string // its folder; empty: no cgroup could be made
	logged  chan struct{}
	mu      sync.Mutex // guards what follows
	lastLog []string
}

// start starts larder over a bucket and waits until it is ready.
func (c config) start(ctx context.Context, bucketConfig, data string) (*process, error) {
	p := &process{logged: make(chan struct{})}
	args := append([]string{"store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--data-dir=" + data,
		"--objstore.config=" + bucketConfig}, c.flags...)
	p.cgroup = makeCgroup(c.limit)
	p.cmd = exec.CommandContext(ctx, c.binary, args...)
	if p.cgroup != "" {
		// The shell enters the cgroup and becomes larder.
		enter := `echo $$ > "$1" && shift && exec "$@"`
		p.cmd = exec.CommandContext(ctx, "sh", append([]string{"-c", enter, "sh", filepath.Join(p.cgroup, "cgroup.procs"), c.binary}, args...)...)
	}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", c.limit/10*9))
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go p.follow(c, stderr, ready)
	select {
	case err = <-ready:
	case <-time.After(time.Minute):
		err = errors.New("larder is not ready after a minute")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

var addressIn = regexp.MustCompile(`address"?[=:]"?([^\s"]+)`)

// follow reads the log to its end. ready hears when both addresses are known and the process is ready, or that it ended before.
func (p *process) follow(c config, log io.Reader, ready chan<- error) {
	defer close(p.logged)
	lines := bufio.NewScanner(log)
	isReady, told := false, false
	for lines.Scan() {
		line := lines.Text()
		c.note("  %s", line)
		p.mu.Lock()
		p.lastLog = append(p.lastLog, line)
		p.lastLog = p.lastLog[max(0, len(p.lastLog)-20):]
		p.mu.Unlock()
		m := addressIn.FindStringSubmatch(line)
		switch {
		case m != nil && strings.Contains(line, "serving gRPC"):
			p.grpc = m[1]
		case m != nil && strings.Contains(line, "Listening on"):
			p.http = m[1]
		case strings.Contains(line, "readiness changed") && strings.Contains(line, "ready=true"):
			isReady = true
		}
		if isReady && p.grpc != "" && p.http != "" && !told {
			told = true
			ready <- nil
		}
	}
	if !told {
		ready <- fmt.Errorf("larder ended before it was ready:\n%s", p.log())
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lastLog, "\n")
}

// stop ends the process, and the cgroup with it.
func (p *process) stop() error {
	_ = p.cmd.Process.Kill() // it may be over
	<-p.logged
	_ = p.cmd.Wait() // killed
	if p.cgroup == "" {
		return nil
	}
	return os.Remove(p.cgroup)
}

// makeCgroup makes a memory cgroup, of version 1 or 2, and returns its folder; "" where it may not.
func makeCgroup(limit int64) string {
	for _, v := range []struct{ parent, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(v.parent, fmt.Sprintf("larder-bounded-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, v.file), []byte(strconv.FormatInt(limit, 10)), 0o644) == nil {
			return dir
		}
		_ = os.Remove(dir) // it is empty
	}
	return ""
}

// cgroupPeak is the most that the cgroup has held, the kernel's part and page cache included; 0: not known.
func (p *process) cgroupPeak() int64 {
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if b, err := os.ReadFile(filepath.Join(p.cgroup, file)); p.cgroup != "" && err == nil {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
			return n
		}
	}
	return 0
}

// memory returns the bytes that the process has resident, and the most that it ever had.
func (p *process) memory() (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	field := func(name string) (n int64) {
		if _, rest, ok := strings.Cut(string(b), name+":"); ok {
			_, _ = fmt.Sscanf(rest, "%d kB", &n) // 0 if it is not a number
		}
		return n << 10
	}
	if peak = field("VmHWM"); peak == 0 {
		return 0, 0, fmt.Errorf("larder has ended:\n%s", p.log())
	}
	return field("VmRSS"), peak, nil
}

// metrics returns the samples of /metrics by name and labels, as they are written there.
func (p *process) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 && lines.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(lines.Text()[i+1:], 64); err == nil {
				out[lines.Text()[:i]] = v
			}
		}
	}
	return out, lines.Err()
}
