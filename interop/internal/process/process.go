// Package process runs the servers that the tests talk to: larder, Thanos's components, Prometheus,
// object stores. Each is a child process on its own loopback ports. The package waits for a server
// by a probe, never for a fixed time, and stops it by its pid.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout allows for a machine that compiles something else at the same time.
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// Options describe the program. Name and Bin are required.
type Options struct {
	// Name is the program's name in errors.
	Name string
	Bin  string
	Args []string
	// Env is added to the environment, as NAME=value.
	Env []string
	// Dir is the working directory; default: the test's.
	Dir string
	// Ready is called repeatedly until it returns true; nil: the process is ready once it runs.
	// HTTP and Listening return one.
	Ready func(ctx context.Context) bool
	// StopSignal is the signal that Close sends; default SIGTERM.
	StopSignal syscall.Signal
}

// Process is a running child.
type Process struct {
	name    string
	cmd     *exec.Cmd
	signal  syscall.Signal
	exited  chan struct{}
	exitErr error // written before exited is closed
	log     *tail
}

// Start runs a program and waits until it is ready. A program that ends before, or is not ready
// when ctx ends, is an error with the end of its output. Without a deadline in ctx it waits for a
// minute. ctx bounds the start only: Close ends the process.
func Start(ctx context.Context, o Options) (*Process, error) {
	p := &Process{
		name:   o.Name,
		cmd:    exec.Command(o.Bin, o.Args...),
		signal: o.StopSignal,
		exited: make(chan struct{}),
		log:    &tail{},
	}
	if p.signal == 0 {
		p.signal = syscall.SIGTERM
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Dir = o.Dir
	if len(o.Env) > 0 {
		p.cmd.Env = append(os.Environ(), o.Env...)
	}
	// A test binary that is killed must not leave servers behind.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	go func() {
		p.exitErr = p.cmd.Wait()
		close(p.exited)
	}()
	if o.Ready == nil {
		return p, nil
	}
	if err := p.Wait(ctx, o.Ready); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Wait calls cond repeatedly until it returns true, the process ends, or ctx ends. Without a
// deadline in ctx it waits for a minute.
func (p *Process) Wait(ctx context.Context, cond func(ctx context.Context) bool) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond(ctx) {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s exited before it was ready: %w\n%s", p.name, p.exitErr, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, ctx.Err(), p.log)
		case <-tick.C:
		}
	}
}

// HTTP returns a probe that is ready when the URL answers 200.
func HTTP(url string) func(context.Context) bool {
	return func(ctx context.Context) bool {
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
}

// Listening returns a probe that is ready when a server accepts connections at addr.
func Listening(addr string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the end of the process's output.
func (p *Process) Log() string { return p.log.String() }

// Exited returns a channel that is closed once the process has ended. Before Close that means a
// crash.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns how the process ended; nil for exit code 0. Call it after Exited is closed.
func (p *Process) Err() error { return p.exitErr }

// Signal sends the process a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Close asks the process to stop and kills it if it does not.
func (p *Process) Close() error {
	if err := p.cmd.Process.Signal(p.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(
			fmt.Errorf("%s did not stop within %s of %s", p.name, stopTimeout, p.signal), err,
		)
	}
}

// tail keeps the last bytes of an output.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 64 << 10
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
