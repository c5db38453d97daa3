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
	// Others who waited for the work note it, too.
	if !b.Note(fmt.Errorf("wrapped: %w", err)) || b.Note(fault) || b.Note(nil) {
		t.Error("Note does not see what is a panic")
	}
	func() {
		defer func() { _ = b.Caught(recover(), "object", "x") }()
		var m map[string]int
		m["a"] = 1 //nolint:govet,staticcheck // it is to panic
	}()
	const want = `
# HELP larder_panics_total Panics that were contained, by where. Each is a bug, and is logged with its stack.
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
