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
	// Files returns the files that the unit is read from. It is called before every comparison,
	// because a file may name others.
	Files func() []string
	// Load reads the files and applies them. After an error the current configuration must remain
	// in use. Load is also called if nothing has changed. ctx ends when the process stops.
	Load func(ctx context.Context) error
}

// Options of a Reloader; the zero value works.
type Options struct {
	// Settle is the time between a notification and reading the files, because one change sends
	// several notifications. 0 = 200 ms. A longer time delays changes.
	Settle time.Duration
	// Recheck is the interval at which files are compared without a notification, and failed units
	// are loaded again. 0 = 3 minutes. A shorter one reads the files more often.
	Recheck time.Duration
	// Logger receives the log. nil = no log.
	Logger *slog.Logger
	// Registerer receives the metrics. nil = no metrics.
	Registerer prometheus.Registerer
}

// Reloader keeps units up to date.
type Reloader struct {
	opts     Options
	log      *slog.Logger
	panics   *panics.Guard
	units    []*unit
	requests chan struct{} // of Reload

	successful, succeededAt *prometheus.GaugeVec
}

type unit struct {
	Unit
	loaded bool              // at least once, with or without success
	failed bool              // at the last load
	seen   [sha256.Size]byte // hash of the files at the last load
}

// New returns a Reloader. The process must have loaded the units from their files just before.
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
		opts:     opts,
		log:      opts.Logger.With("component", "reload"),
		panics:   panics.New("reload", opts.Logger, opts.Registerer),
		requests: make(chan struct{}, 1),
	}
	r.successful = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "larder_config_last_reload_successful",
		Help: "1 if the last reload of this configuration succeeded, 0 if it failed and the previous configuration is still in use.",
	}, []string{"kind"})
	r.succeededAt = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "larder_config_last_reload_success_timestamp_seconds",
		Help: "Time of the last successful reload of this configuration.",
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

// Reload requests that all units are loaded again, changed or not. It does not wait for that.
func (r *Reloader) Reload() {
	select {
	case r.requests <- struct{}{}:
	default: // a request is pending
	}
}

// Run loads units as their files change, until ctx ends.
func (r *Reloader) Run(ctx context.Context) {
	dirs := openWatch(r.log)
	defer dirs.close()
	recheck := time.NewTicker(r.opts.Recheck)
	defer recheck.Stop()
	var settled <-chan time.Time
	onlyChanged := func(*unit) bool { return false }
	// Files may have changed since the process read them at its start.
	r.load(ctx, dirs, onlyChanged)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.requests:
			r.load(ctx, dirs, func(*unit) bool { return true })
		case ev := <-dirs.events:
			// Further events do not extend the wait: a directory that changes all the time must
			// not prevent its files from being read.
			if settled == nil && ev.Op != fsnotify.Chmod {
				settled = time.After(r.opts.Settle)
			}
		case err := <-dirs.errors:
			r.log.Warn("lost notifications of changed files", "err", err)
			if settled == nil {
				settled = time.After(r.opts.Settle)
			}
		case <-settled:
			settled = nil
			r.load(ctx, dirs, onlyChanged)
		case <-recheck.C:
			// A load may have failed for a reason outside the files.
			r.load(ctx, dirs, func(u *unit) bool { return u.failed })
		}
	}
}

// load loads the units whose files have changed, and those for which others returns true.
func (r *Reloader) load(ctx context.Context, dirs *watch, others func(*unit) bool) {
	var files [][]string
	var every []string
	for _, u := range r.units {
		f := u.Files()
		files = append(files, f)
		every = append(every, f...)
	}
	dirs.follow(every) // before the files are read, so that no later change goes unnoticed
	for i, u := range r.units {
		seen := contents(files[i])
		first := !u.loaded
		if !first && seen == u.seen && !others(u) {
			continue
		}
		u.loaded, u.seen = true, seen
		// A panic, of a parser for instance, is an error like others.
		err := r.panics.Do(func() error { return u.Load(ctx) })
		if ctx.Err() != nil {
			return
		}
		u.failed = err != nil
		if u.failed {
			r.successful.WithLabelValues(u.Kind).Set(0)
			r.log.Error("configuration reload failed, keeping the previous configuration",
				"kind", u.Kind, "err", err)
			continue
		}
		r.successful.WithLabelValues(u.Kind).Set(1)
		r.succeededAt.WithLabelValues(u.Kind).SetToCurrentTime()
		if !first {
			r.log.Info("configuration reloaded", "kind", u.Kind)
		}
	}
}

// contents returns a hash of the contents of files. A file that cannot be read counts with its
// error.
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

// watch receives notifications of changes in directories. Its channels stay silent if the system
// has no notifications.
type watch struct {
	log    *slog.Logger
	notify *fsnotify.Watcher // nil without notifications
	events <-chan fsnotify.Event
	errors <-chan error
	failed map[string]bool // directories that cannot be watched, already logged
}

func openWatch(log *slog.Logger) *watch {
	w := &watch{log: log, failed: map[string]bool{}}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("no notifications of changed files, polling instead", "err", err)
		return w
	}
	w.notify, w.events, w.errors = n, n.Events, n.Errors
	return w
}

func (w *watch) close() {
	if w.notify != nil {
		_ = w.notify.Close() // nothing to flush
	}
}

// follow watches the directories of files, and of the targets of those that are links, and no other
// directories.
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
	// Ask for the list each time, because removed directories disappear from it.
	for _, dir := range w.notify.WatchList() {
		if have[dir] = true; !want[dir] {
			_ = w.notify.Remove(dir) // fails only if the directory was just removed
		}
	}
	for dir := range want {
		if have[dir] {
			continue
		}
		err := w.notify.Add(dir)
		if err != nil && !w.failed[dir] {
			w.log.Warn("cannot watch a directory for changed files, polling instead",
				"dir", dir, "err", err)
		}
		w.failed[dir] = err != nil
	}
}
