package panics

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Error is a panic that was contained.
type Error struct {
	Value any
	Stack []byte

	noted atomic.Bool
}

// Error leaves the stack out: it is for the log, not for a client.
func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Contained returns f with its panics turned into errors, which nobody has noted
// yet.
func Contained(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &Error{Value: v, Stack: debug.Stack()}
			}
		}()
		return f()
	}
}

// Guard counts and logs the panics of one part of the process. A nil Guard
// contains them all the same.
type Guard struct {
	log   *slog.Logger
	where string
	count prometheus.Counter
}

// New returns a guard for the part that is named: the metric's label. All guards
// of one registerer share the metric; nil is no metric, and a nil log no log.
func New(where string, log *slog.Logger, reg prometheus.Registerer) *Guard {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_panics_total",
		Help: "Panics that were contained, by where. Each is a bug, and is logged with its stack.",
	}, []string{"where"})
	if reg != nil {
		var already prometheus.AlreadyRegisteredError
		switch err := reg.Register(vec); {
		case errors.As(err, &already):
			vec = already.ExistingCollector.(*prometheus.CounterVec)
		case err != nil:
			panic(err) // as MustRegister does
		}
	}
	return &Guard{log: log, where: where, count: vec.WithLabelValues(where)}
}

// Do calls f. A panic is counted, logged, and returned as an Error.
func (g *Guard) Do(f func() error) error {
	err := Contained(f)()
	g.Note(err)
	return err
}

// Caught is for a deferred function that has recovered v, which is not nil: it
// counts and logs the panic, with args as slog has them, and returns it. An *Error,
// which was carried over from another goroutine, keeps that goroutine's stack.
func (g *Guard) Caught(v any, args ...any) *Error {
	err, ok := v.(*Error)
	if !ok {
		err = &Error{Value: v, Stack: debug.Stack()}
	}
	g.Note(err, args...)
	return err
}

// Note counts and logs the panic in err's chain, if there is one that was not
// noted before. It reports whether there is one.
func (g *Guard) Note(err error, args ...any) bool {
	var p *Error
	if !errors.As(err, &p) {
		return false
	}
	if g != nil && !p.noted.Swap(true) {
		g.count.Inc()
		g.log.Error(
			"a panic was contained",
			append(
				[]any{"where", g.where, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack)},
				args...)...)
	}
	return true
}
