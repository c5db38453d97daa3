package main

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
	// startTime is what a process gets to start, and endTime to end once it was asked to.
	startTime = time.Minute
	endTime   = time.Minute
	// keptLines is how much of a log is kept, to be shown when the process fails.
	keptLines = 200
)

// child is a process of the command's own. It dies with the command.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended; then err says how
	err  error

	mu    sync.Mutex // guards lines
	lines []string   // the last ones of its log
}

// startChild runs a program. Every line that it logs goes through onLine, if there is one.
func startChild(name string, onLine func(line string), bin string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(bin, args...), done: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.cmd.Stderr = w, w
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		c.read(r, onLine)
		r.Close()
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) read(r io.Reader, onLine func(string)) {
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

// tail is the end of the log.
func (c *child) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash would.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// signal sends a signal; a process that has ended takes none.
func (c *child) signal(s syscall.Signal) {
	if !c.ended() {
		_ = c.cmd.Process.Signal(s) // what is wrong with a signal shows in what the process does
	}
}

// wait waits until cond holds.
func (c *child) wait(ctx context.Context, cond func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if cond(ctx) {
			tick.Stop()
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s has ended: %w\n%s", c.name, errors.Join(c.err, errEnded), c.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", c.name, ctx.Err(), c.tail())
		case <-tick.C:
		}
	}
}

var errEnded = errors.New("it should run")
