package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"larder/benchmarks/process"
	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
)

// world is all processes of a run and their faults.
type world struct {
	conf config
	out  io.Writer
	dir  string

	bucket    *bucketUnderTest
	s3        *s3server.Server
	faults    *faultstore.Faults
	cache     *cache
	reference *gateway
	tested    *gateway
	dataDir   string // larder's part of the data directory of the process under test

	questions []question
	want      []answer
	idle      left // what the process under test held before the first fault

	undo []func() // run last to first
}

// newWorld starts all processes and learns the right answers.
func newWorld(ctx context.Context, conf config, out io.Writer) (*world, error) {
	w := &world{conf: conf, out: out, faults: faultstore.New(conf.seed)}
	if err := w.start(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) start(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "larder-chaos-"); err != nil {
		return err
	}
	w.undo = append(w.undo, func() { w.problem("remove "+w.dir, os.RemoveAll(w.dir)) })
	bin, err := process.Build(ctx, w.conf.binary, w.dir)
	if err != nil {
		return err
	}
	start := time.Now()
	reference, tested, series, err := writeBuckets(ctx, w.dir, w.conf.seed, w.conf.size)
	if err != nil {
		return fmt.Errorf("write the bucket: %w", err)
	}
	w.bucket = tested
	w.printf("%d blocks with %d series written in %s\n", len(tested.blocks), series,
		time.Since(start).Round(time.Millisecond))

	if w.s3, err = s3server.Start(s3server.Options{Dir: tested.dir, Faults: w.faults}); err != nil {
		return err
	}
	w.undo = append(w.undo, func() { w.problem("S3 server", w.s3.Close()) })
	r := rand.New(rand.NewPCG(w.conf.seed, 0x77))
	if w.cache, err = startCache(ctx, r); err != nil {
		return err
	}
	w.undo = append(w.undo, w.cache.close)

	w.reference, err = newGateway(ctx, "the reference", bin,
		"--objstore.config=type: FILESYSTEM\nconfig: {directory: "+reference+"}",
		"--no-cache-index-header", "--wait-headers=200y")
	if err != nil {
		return err
	}
	w.undo = append(w.undo, w.reference.close)
	w.dataDir = filepath.Join(w.dir, "data", "larder")
	flags := w.flags
	if w.conf.diskSoak > 0 {
		flags = w.diskSoakFlags
	}
	if w.tested, err = newGateway(ctx, "larder", bin, flags()...); err != nil {
		return err
	}
	w.undo = append(w.undo, w.tested.close)
	return w.learn(ctx, r)
}

// flags are the flags of the process under test: caches that are too small, headers that are closed
// soon, frequent syncs.
func (w *world) flags() []string {
	cache := fmt.Sprintf(
		"type: TIERED\nconfig:\n  in_memory: {max_size: 3MB}\n  memcached: {addresses: [%q], timeout: 500ms, max_idle_connections: 4}\n",
		w.cache.relay.addr(),
	)
	return []string{
		"--objstore.config-file=" + w.file("bucket.yaml", w.bucketConfig()),
		"--selector.relabel-config-file=" + w.file("relabel.yaml", relabelConfig),
		"--data-dir=" + filepath.Join(w.dir, "data"),
		"--index-cache.config=" + cache,
		"--store.caching-bucket.config=" + cache,
		"--disk-cache-size=40MB",
		"--store.index-header-lazy-reader-idle-timeout=1s",
		"--sync-block-duration=2s",
		"--store.request-bytes=64MB",
		"--drain-delay=500ms",
		"--grpc-grace-period=10s",
		"--store.grpc.send-stall-timeout=" + sendStall.String(),
	}
}

// bucketConfig is the configuration of the S3 server. Idle connections are closed soon, so that an
// idle process has no open ones.
func (w *world) bucketConfig() string {
	return w.s3.Config() + "  http_config: {idle_conn_timeout: 1s}\n"
}

// relabelConfig keeps every block.
const relabelConfig = "- action: drop\n  source_labels: [cluster]\n  regex: no-such-cluster\n"

// file writes a configuration file atomically.
func (w *world) file(name, text string) string {
	path := filepath.Join(w.dir, name)
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		w.problem("configuration file", err) // the start of the process will report what is missing
	}
	return path
}

// learn asks the reference every question, and the process under test too: a difference before the
// first fault is an error.
func (w *world) learn(ctx context.Context, r *rand.Rand) error {
	w.questions = questions(r, w.conf.questions)
	w.want = make([]answer, len(w.questions))
	start, series := time.Now(), 0
	for i := range w.questions {
		q := &w.questions[i]
		a, err := w.reference.ask(ctx, q)
		if err != nil {
			return fmt.Errorf("the reference has no answer to question %d, %s: %w\n%s", i, q.name,
				err, w.reference.Tail())
		}
		w.want[i] = a
		series += len(a.upTo)
	}
	w.printf("%d different questions, answers of %d series together, in %s\n", len(w.questions),
		series, time.Since(start).Round(time.Millisecond))
	return w.askAll(ctx)
}

// askAll asks the process under test every question once, and expects the right answers.
func (w *world) askAll(ctx context.Context) error {
	for i := range w.questions {
		q := &w.questions[i]
		a, err := w.tested.ask(ctx, q)
		if d := a.differs(w.want[i], err); d != "" || err != nil {
			return fmt.Errorf("question %d, %s: %s: %w", i, q.name, d, err)
		}
	}
	return nil
}

// settle waits until the process under test holds no more than before the first fault, and returns
// what it holds, or what is too much.
func (w *world) settle(ctx context.Context) (l left, tooMuch string, err error) {
	for deadline := time.Now().Add(w.conf.settle); ; {
		if l, err = w.tested.count(ctx, w.dataDir); err != nil {
			return l, "", err
		}
		tooMuch = l.moreThan(w.idle)
		if tooMuch == "" || time.Now().After(deadline) {
			return l, tooMuch, nil
		}
		if !pause(ctx, 300*time.Millisecond) {
			return l, "", ctx.Err()
		}
	}
}

const (
	// extraGoroutines and extraHandles are how much more an idle process may hold than at
	// first, because connections to memcached and the bucket come and go.
	extraGoroutines = 20
	extraHandles    = 10
)

// moreThan returns what is too much.
func (l left) moreThan(was left) string {
	var all []string
	add := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(l.inUse+l.waiting == 0, "%g bytes of the request allowance in use, and %g waited for",
		l.inUse, l.waiting)
	add(l.goroutines <= was.goroutines+extraGoroutines, "%d goroutines, %d at first",
		l.goroutines, was.goroutines)
	add(l.files <= was.files+extraHandles, "%d open files, %d at first", l.files, was.files)
	add(l.sockets <= was.sockets+extraHandles, "%d sockets, %d at first", l.sockets, was.sockets)
	add(l.temp == 0, "%d temporary files", l.temp)
	add(l.panics == 0, "%g panics", l.panics)
	return strings.Join(all, ", ")
}

func (w *world) close() {
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
	w.undo = nil
}

func (w *world) printf(format string, args ...any) { fmt.Fprintf(w.out, format, args...) }

// problem reports a problem of the surroundings, which is no failure.
func (w *world) problem(what string, err error) {
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.printf("%s: %v\n", what, err)
	}
}

// pause waits. It returns false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
