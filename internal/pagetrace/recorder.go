package pagetrace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
	"larder/internal/panics"
)

const (
	// FileName is the name of a trace in its directory.
	FileName = "page-trace"

	bufferBytes = 64 << 10
	// maxQueued bounds the buffers that wait to be written, 4 MiB.
	maxQueued = 64
	// minBytes is the least limit of a file: a buffer must fit into half of it.
	minBytes = 1 << 20
)

// Options of a Recorder. Dir and Header are required.
type Options struct {
	Dir localfs.Dir
	// LockDir is called before the file is created: see datadir.Dir.Lock. nil: not locked.
	LockDir func() error
	Header  Header
	// MaxBytes bounds the file, at least 1 MiB. Default 64 MiB. A page access takes about two
	// bytes. A larger file has more of the pages, and makes curves more exact.
	MaxBytes int64
	Logger   *slog.Logger
	// Registerer gets the metrics. nil: none.
	Registerer prometheus.Registerer
}

// Recorder writes a trace. It is safe for concurrent use.
type Recorder struct {
	opts   Options
	panics *panics.Guard
	start  time.Time

	threshold atomic.Uint64
	dropped   prometheus.Counter

	mu     sync.Mutex // guards what follows
	buf    []byte
	last   time.Duration
	closed bool

	full chan []byte // to the writer
	done chan struct{}
}

// Record begins a trace. It replaces an earlier one.
func Record(o Options) (*Recorder, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	o.MaxBytes = max(o.MaxBytes, minBytes)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.LockDir != nil {
		if err := o.LockDir(); err != nil {
			return nil, err
		}
	}
	r := &Recorder{
		opts: o, panics: panics.New("page trace", o.Logger, o.Registerer), start: time.Now(),
		full: make(chan []byte, maxQueued), done: make(chan struct{}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_page_trace_dropped_bytes_total",
			Help: "Bytes of the page trace that were dropped because the disk was slow or failed.",
		}),
	}
	r.threshold.Store(all)
	w := &writer{Recorder: r}
	if err := w.create(nil); err != nil {
		return nil, err
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(r.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "larder_page_trace_sampled_ratio",
			Help: "Part of all pages whose accesses are in the page trace.",
		}, func() float64 { return float64(r.threshold.Load()) / all }))
	}
	go func() {
		defer close(r.done)
		err := r.panics.Do(w.run)
		for b := range r.full { // the writer has failed
			r.dropped.Add(float64(len(b)))
		}
		if err = errors.Join(err, w.file.Close()); err != nil {
			o.Logger.Warn("page trace ended", "file", o.Dir.Path(FileName), "err", err)
		}
	}()
	return r, nil
}

// Note records that a request needs pages of an object of a cache. It does not wait. It overwrites
// pages.
func (r *Recorder) Note(cache int, object uint64, pages []int64) {
	pages = sample(r.threshold.Load(), cache, object, pages)
	if len(pages) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := time.Since(r.start).Truncate(time.Millisecond)
	r.buf = appendFetch(r.buf, now-r.last, cache, object, pages)
	r.last = now
	if len(r.buf) >= bufferBytes {
		r.flush()
	}
}

// flush passes the buffer to the writer. The caller holds mu.
func (r *Recorder) flush() {
	select {
	case r.full <- r.buf:
	default:
		r.dropped.Add(float64(len(r.buf)))
	}
	r.buf = nil
}

// Close writes what is left and closes the file. Later calls of Note do nothing.
func (r *Recorder) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		r.flush()
		close(r.full)
	}
	r.mu.Unlock()
	<-r.done
}

// writer writes the file. One goroutine uses it.
type writer struct {
	*Recorder
	file *os.File
	size int64
}

// create makes a file with the records of old, none if it is nil, and puts it in the place of the
// current one.
func (w *writer) create(old *Reader) (err error) {
	f, err := w.opts.Dir.Create(FileName + ".*.tmp")
	if err != nil {
		return err
	}
	size, err := copyTo(f, w.threshold.Load(), &w.opts.Header, old)
	if err == nil {
		err = w.opts.Dir.Rename(filepath.Base(f.Name()), FileName)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if w.file != nil {
		err = w.file.Close()
	}
	w.file, w.size = f, size
	return err
}

// copyTo writes the head of a file, and the sampled records of old. It returns their size.
func copyTo(f *os.File, threshold uint64, h *Header, old *Reader) (size int64, err error) {
	head, err := encodeHead(threshold, h)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(f, 1<<18)
	put := func(b []byte) {
		size += int64(len(b))
		_, err = out.Write(b)
	}
	put(head)
	var last time.Duration
	var record []byte
	for err == nil && old != nil {
		fetch, e := old.Next()
		if errors.Is(e, io.EOF) {
			break
		}
		if e != nil {
			return size, e
		}
		record = appendFetch(record[:0], fetch.At-last, fetch.Cache, fetch.Object, fetch.Pages)
		last = fetch.At
		put(record)
	}
	return size, errors.Join(err, out.Flush())
}

// run writes buffers until the channel is closed.
func (w *writer) run() error {
	for b := range w.full {
		if w.size+int64(len(b)) > w.opts.MaxBytes {
			if err := w.thin(); err != nil {
				return fmt.Errorf("thin out the trace: %w", err)
			}
		}
		n, err := w.file.Write(b)
		w.size += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// thin halves the threshold until the file is half full at most.
func (w *writer) thin() error {
	for w.size > w.opts.MaxBytes/2 {
		w.threshold.Store(w.threshold.Load() / 2)
		if _, err := w.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		old, err := NewReader(w.file)
		if err != nil {
			return err
		}
		old.threshold = w.threshold.Load()
		if err := w.create(old); err != nil {
			return err
		}
	}
	return nil
}
