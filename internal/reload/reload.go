package reload

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/panics"
)

// Unit is a piece of configuration that can be replaced.
type Unit struct {
	// Kind names it in logs and metrics.
	Kind string
	// Files returns the files that it is read from. It is called again before each look at them: a
	// file may name others.
	Files func() []string
	// Load reads the files and puts what they say to use. After an error what was in use stays in
	// use. It is also called when nothing has changed. When ctx ends the process stops.
	Load func(ctx context.Context) error
}

// Options of a Reloader; the zero value works.
type Options struct {
	// Settle is how long to wait after a notification before files are read, since one change sends
	// several; 0 is 200 ms.
	Settle time.Duration
	// Recheck is how often files are compared without a notification, and what failed is loaded
	// again; 0 is 3 minutes.
	Recheck time.Duration
	// Logger is where the Reloader reports; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil is none.
	Registerer prometheus.Registerer
}

// Reloader keeps units up to date.
type Reloader struct {
	opts   Options
	log    *slog.Logger
	panics *panics.Guard
	units  []*unit
	asked  chan struct{}

	successful, succeededAt *prometheus.GaugeVec
}

type unit struct {
	Unit
	loaded bool              // once at least, well or not
	failed bool              // the last time
	seen   [sha256.Size]byte // what the files held when they were loaded last
}

// New returns a Reloader of units that are in use as their files were just now.
func New(units []Unit, opts Options) *Reloader {
	if opts.Settle == 0 {
		opts.Settle = 200 * time.Millisecond
	}
	if opts.Recheck == 0 {
		opts.Recheck = 3 * time.Minute
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reloader{
		opts:   opts,
		log:    opts.Logger.With("component", "reload"),
		panics: panics.New("reload", opts.Logger, opts.Registerer),
		asked:  make(chan struct{}, 1),
	}
	r.successful = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "larder_config_last_reload_successful",
		Help: "Whether what the configuration files hold is in use (1), or could not be and what was before still is (0).",
	}, []string{"kind"})
	r.succeededAt = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "larder_config_last_reload_success_timestamp_seconds",
		Help: "When the configuration files were last put to use.",
	}, []string{"kind"})
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(r.successful, r.succeededAt)
	}
	for _, u := range units {
		r.units = append(r.units, &unit{Unit: u})
		r.successful.WithLabelValues(u.Kind).Set(1)
		r.succeededAt.WithLabelValues(u.Kind).SetToCurrentTime()
	}
	return r
}

// Reload has all units loaded again, changed or not. It does not wait for that.
func (r *Reloader) Reload() {
	select {
	case r.asked <- struct{}{}:
	default: // somebody has asked already
	}
}

// Run loads units as their files change, until ctx ends.
func (r *Reloader) Run(ctx context.Context) {
	dirs := openWatch(r.log)
	defer dirs.close()
	recheck := time.NewTicker(r.opts.Recheck)
	defer recheck.Stop()
	var settled <-chan time.Time
	changed := func(*unit) bool { return false } // and no others
	// files may have changed since they were read for the start
	r.look(ctx, dirs, changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.asked:
			r.look(ctx, dirs, func(*unit) bool { return true })
		case ev := <-dirs.events:
			// Not put off by further events: a directory that never rests must not keep its files
			// from being read.
			if settled == nil && ev.Op != fsnotify.Chmod {
				settled = time.After(r.opts.Settle)
			}
		case err := <-dirs.errors:
			r.log.Warn("notifications of changed files were lost", "err", err)
			if settled == nil {
				settled = time.After(r.opts.Settle)
			}
		case <-settled:
			settled = nil
			r.look(ctx, dirs, changed)
		case <-recheck.C:
			// What failed may have failed for a reason outside the files.
			r.look(ctx, dirs, func(u *unit) bool { return u.failed })
		}
	}
}

// look loads the units whose files have changed, and those that others says.
func (r *Reloader) look(ctx context.Context, dirs *watch, others func(*unit) bool) {
	var files [][]string
	var every []string
	for _, u := range r.units {
		f := u.Files()
		files = append(files, f)
		every = append(every, f...)
	}
	dirs.follow(every) // before they are read, so that no later change goes unnoticed
	for i, u := range r.units {
		seen := contents(files[i])
		first := !u.loaded
		if !first && seen == u.seen && !others(u) {
			continue
		}
		u.loaded, u.seen = true, seen
		err := r.load(ctx, u.Load)
		if ctx.Err() != nil {
			return
		}
		u.failed = err != nil
		if u.failed {
			r.successful.WithLabelValues(u.Kind).Set(0)
			r.log.Error(
				"configuration was not reloaded: what was in use stays", "kind", u.Kind, "err", err,
			)
			continue
		}
		r.successful.WithLabelValues(u.Kind).Set(1)
		r.succeededAt.WithLabelValues(u.Kind).SetToCurrentTime()
		if !first {
			r.log.Info("configuration reloaded", "kind", u.Kind)
		}
	}
}

// load calls f. A panic, of a parser for instance, is an error: the old configuration serves on.
func (r *Reloader) load(ctx context.Context, f func(context.Context) error) error {
	return r.panics.Do(func() error { return f(ctx) })
}

// contents identifies what files hold; one that cannot be read, by why.
func contents(files []string) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			b = []byte(err.Error())
		}
		one := sha256.Sum256(b)
		fmt.Fprintf(h, "%s\x00%t\x00", name, err == nil)
		h.Write(one[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// watch is notified of changes in directories. Without notifications it only never sends.
type watch struct {
	log    *slog.Logger
	notify *fsnotify.Watcher // nil where the system gives none
	events <-chan fsnotify.Event
	errors <-chan error
	failed map[string]bool // directories that cannot be watched, of which the log knows
}

func openWatch(log *slog.Logger) *watch {
	w := &watch{log: log, failed: map[string]bool{}}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("changed files are noticed late: the system does not notify", "err", err)
		return w
	}
	w.notify, w.events, w.errors = n, n.Events, n.Errors
	return w
}

func (w *watch) close() {
	if w.notify != nil {
		_ = w.notify.Close() // it only watched
	}
}

// follow watches the directories of files, and of what they point to where they are links, and no
// others.
func (w *watch) follow(files []string) {
	if w.notify == nil {
		return
	}
	want := map[string]bool{}
	for _, f := range files {
		want[filepath.Dir(f)] = true
		if target, err := filepath.EvalSymlinks(f); err == nil {
			want[filepath.Dir(target)] = true
		}
	}
	have := map[string]bool{}
	// not kept here: a directory that is removed leaves it
	for _, dir := range w.notify.WatchList() {
		if have[dir] = true; !want[dir] {
			_ = w.notify.Remove(dir) // only a directory that has just gone
		}
	}
	for dir := range want {
		if have[dir] {
			continue
		}
		err := w.notify.Add(dir)
		if err != nil && !w.failed[dir] {
			w.log.Warn(
				"changed files are noticed late: their directory is not watched", "dir", dir, "err",
				err,
			)
		}
		w.failed[dir] = err != nil
	}
}
