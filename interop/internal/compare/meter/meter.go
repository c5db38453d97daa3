// Package meter reads what a process uses: CPU time, memory and allocations.
package meter

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"larder/interop/internal/process"
)

// Process is a process that is measured.
type Process struct {
	PID int
	// Metrics is the URL of its Prometheus metrics.
	Metrics string
}

// CPU is the CPU time that all threads of the process have used, ended ones too, to the nanosecond.
func (p Process) CPU() (time.Duration, error) {
	// The kernel's id of another process's CPU clock: see clock_getcpuclockid(3).
	clock := int32(^p.PID)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", p.PID, err)
	}
	return time.Duration(ts.Nano()), nil
}

const (
	// quietStep is how long CPU time is watched, quietLimit how much of it an idle process uses.
	quietStep  = 25 * time.Millisecond
	quietLimit = time.Millisecond
	// quietSteps bounds the wait.
	quietSteps = 200
)

// Quiet waits until the process does next to nothing and returns its CPU time. It gives up waiting
// after five seconds.
func (p Process) Quiet() (time.Duration, error) {
	last, err := p.CPU()
	if err != nil {
		return 0, err
	}
	for range quietSteps {
		time.Sleep(quietStep)
		now, err := p.CPU()
		if err != nil {
			return 0, err
		}
		if now-last < quietLimit {
			return now, nil
		}
		last = now
	}
	return last, nil
}

// ResetPeak makes Peak forget what was before.
func (p Process) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID), []byte("5"), 0)
}

// Peak is the largest resident set since ResetPeak, in bytes.
func (p Process) Peak() (int64, error) { return p.status("VmHWM:") }

// Resident is the resident set, in bytes.
func (p Process) Resident() (int64, error) { return p.status("VmRSS:") }

func (p Process) status(field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			var kb int64
			_, err := fmt.Sscan(rest, &kb)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no %s in its status", p.PID, field)
}

// Allocations are bytes and objects of the Go heap.
type Allocations struct{ Bytes, Objects float64 }

func (a Allocations) minus(b Allocations) Allocations {
	return Allocations{a.Bytes - b.Bytes, a.Objects - b.Objects}
}

// Allocating measures what f makes the process allocate. What the measurement itself allocates is
// measured before f and subtracted.
func (p Process) Allocating(ctx context.Context, f func() error) (Allocations, error) {
	var at [3]Allocations
	for i := range at {
		if i == 2 {
			if err := f(); err != nil {
				return Allocations{}, err
			}
		}
		var err error
		if at[i], err = p.allocated(ctx); err != nil {
			return Allocations{}, err
		}
	}
	a := at[2].minus(at[1]).minus(at[1].minus(at[0]))
	return Allocations{max(a.Bytes, 0), max(a.Objects, 0)}, nil
}

func (p Process) allocated(ctx context.Context) (a Allocations, err error) {
	if a.Bytes, err = process.Metric(ctx, p.Metrics, "go_memstats_alloc_bytes_total"); err != nil {
		return a, err
	}
	a.Objects, err = process.Metric(ctx, p.Metrics, "go_memstats_mallocs_total")
	return a, err
}
