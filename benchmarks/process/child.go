package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTime is the time that a process has to start.
	startTime = time.Minute
	// keptLines is how many lines of a log are kept, to be shown if the process fails.
	keptLines = 200
)

// Options of a process. The zero value works.
type Options struct {
	// Name identifies the process in errors.
	Name string
	// OnLine receives every line of the log; nil drops them.
	OnLine func(line string)
	// Env is added to the environment of the benchmark.
	Env []string
	// Limit is a memory limit in bytes, set by a cgroup if one can be made. 0 = no limit.
	Limit int64
	// Umask is the umask of the process in the notation of a shell. "" = that of the benchmark.
	Umask string
}

// Child is a child process of the benchmark, and ends with it. Its methods are safe for concurrent
// use.
type Child struct {
	name   string
	cmd    *exec.Cmd
	group  *cgroup       // nil if there is none
	done   chan struct{} // closed when the process has ended; then err is set
	err    error
	inPeak int64 // of the cgroup; set with err

	mu    sync.Mutex // guards lines
	lines []string   // the last lines of its log
}

// Start runs a program.
func Start(o Options, bin string, args ...string) (*Child, error) {
	c := &Child{name: o.Name, done: make(chan struct{})}
	var before []string // commands of the shell that execs the program
	if o.Limit > 0 {
		c.group = makeCgroup(o.Limit)
	}
	if c.group != nil {
		before = append(before, "echo $$ > '"+c.group.procs()+"'")
	}
	if o.Umask != "" {
		before = append(before, "umask "+o.Umask)
	}
	if len(before) > 0 {
		script := strings.Join(append(before, `exec "$0" "$@"`), " && ")
		bin, args = "sh", append([]string{"-c", script, bin}, args...)
	}
	c.cmd = exec.Command(bin, args...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, c.group.remove())
	}
	c.cmd.Env = append(os.Environ(), o.Env...)
	c.cmd.Stdout, c.cmd.Stderr = w, w
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, errors.Join(fmt.Errorf("%s: %w", o.Name, err), c.group.remove())
	}
	go func() {
		c.read(r, o.OnLine)
		r.Close()
		c.err = c.cmd.Wait()
		c.inPeak = c.group.peak()
		if err := c.group.remove(); err != nil {
			c.err = errors.Join(c.err, err)
		}
		close(c.done)
	}()
	return c, nil
}

func (c *Child) read(r io.Reader, onLine func(string)) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			c.mu.Lock()
			if len(c.lines) == keptLines {
				c.lines = append(c.lines[:0], c.lines[1:]...)
			}
			c.lines = append(c.lines, line)
			c.mu.Unlock()
			if onLine != nil {
				onLine(line)
			}
		}
		if err != nil {
			return // the process has ended
		}
	}
}

// Tail returns the end of the log.
func (c *Child) Tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}

// Pid returns the id of the process.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err returns how the process ended; nil for a clean end. Call it after Done is closed.
func (c *Child) Err() error { return c.err }

// Ended reports whether the process has ended.
func (c *Child) Ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Kill ends the process at once, like a crash.
func (c *Child) Kill() {
	c.Signal(syscall.SIGKILL)
	<-c.done
}

// Signal sends a signal. It does nothing if the process has ended.
func (c *Child) Signal(s syscall.Signal) {
	if !c.Ended() {
		_ = c.cmd.Process.Signal(s) // an error shows in what the process does
	}
}

// Wait waits until cond returns true.
func (c *Child) Wait(ctx context.Context, cond func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if cond(ctx) {
			tick.Stop()
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s has ended: %w\n%s", c.name, errors.Join(c.err, ErrEnded),
				c.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", c.name, ctx.Err(), c.Tail())
		case <-tick.C:
		}
	}
}

// ErrEnded is wrapped by the error about a process that ended by itself.
var ErrEnded = errors.New("the process should still run")
