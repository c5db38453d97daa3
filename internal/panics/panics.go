package panics

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Error is a recovered panic.
type Error struct {
	Value any
	Stack []byte

	noted atomic.Bool
}

// Error returns the text without the stack, which is for the log and not for clients.
func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Contained wraps f and turns its panics into errors. It does not count or log them.
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

// Guard counts and logs the panics of one part of the process. A nil Guard recovers panics without
// counting or logging them.
type Guard struct {
	log   *slog.Logger
	where string
	count prometheus.Counter
}

// New returns a guard for a part of the process. where is the label of the metric, which all guards
// of one registerer share. A nil log or reg turns off logging or counting.
func New(where string, log *slog.Logger, reg prometheus.Registerer) *Guard {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_panics_total",
		Help: "Panics that were recovered, by part of the process. " +
			"Each is a bug, and its stack is logged.",
	}, []string{"where"})
	if reg != nil {
		var already prometheus.AlreadyRegisteredError
		switch err := reg.Register(vec); {
		case errors.As(err, &already):
			vec = already.ExistingCollector.(*prometheus.CounterVec)
		case err != nil:
			panic(err) // same as MustRegister
		}
	}
	return &Guard{log: log, where: where, count: vec.WithLabelValues(where)}
}

// Do calls f. It counts and logs a panic, and returns it as an Error.
func (g *Guard) Do(f func() error) error {
	err := Contained(f)()
	g.Note(err)
	return err
}

// Caught counts and logs the panic that a deferred function has recovered, and returns it. v must
// not be nil. args are attributes for the log line. If v is an *Error from another goroutine,
// Caught keeps that goroutine's stack.
func (g *Guard) Caught(v any, args ...any) *Error {
	err, ok := v.(*Error)
	if !ok {
		err = &Error{Value: v, Stack: debug.Stack()}
	}
	g.Note(err, args...)
	return err
}

// Note counts and logs the panic that err wraps, unless that was done before. It reports whether
// err wraps a panic.
func (g *Guard) Note(err error, args ...any) bool {
	var p *Error
	if !errors.As(err, &p) {
		return false
	}
	if g != nil && !p.noted.Swap(true) {
		g.count.Inc()
		g.log.Error(
			"panic recovered",
			append(
				[]any{"where", g.where, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack)},
				args...)...)
	}
	return true
}
