package panics

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestPanicsAreCountedAndLoggedOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	a, b := New("a", logger, reg), New("b", logger, reg)

	fault := errors.New("a fault")
	if err := a.Do(func() error { return fault }); err != fault {
		t.Errorf("got %v", err)
	}
	err := a.Do(func() error { panic("oops") })
	var p *Error
	if !errors.As(err, &p) || p.Error() != "panic: oops" ||
		!strings.Contains(string(p.Stack), "TestPanicsAreCountedAndLoggedOnce") {
		t.Fatalf("got %v", err)
	}
	// Other goroutines that waited for the work note the panic too.
	if !b.Note(fmt.Errorf("wrapped: %w", err)) || b.Note(fault) || b.Note(nil) {
		t.Error("Note does not recognise a panic, or takes another error for one")
	}
	func() {
		defer func() { _ = b.Caught(recover(), "object", "x") }()
		var m map[string]int
		m["a"] = 1 //nolint:govet,staticcheck // the panic is intended
	}()
	const want = `
# HELP larder_panics_total Panics that were recovered, by part of the process. Each is a bug, and its stack is logged.
# TYPE larder_panics_total counter
larder_panics_total{where="a"} 1
larder_panics_total{where="b"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 2 ||
		!strings.Contains(got, "where=a panic=oops stack=") ||
		!strings.Contains(got, "object=x") {
		t.Errorf("logged %s", got)
	}

	var none *Guard
	if err := none.Do(func() error { panic("oops") }); !errors.As(err, &p) {
		t.Errorf("without a guard: %v", err)
	}
	if err := New("c", nil, nil).Do(func() error { panic("oops") }); !errors.As(err, &p) {
		t.Errorf("without a registerer: %v", err)
	}
}
