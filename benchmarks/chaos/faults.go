package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
)

// fault is one way to break things.
type fault struct {
	name string
	// codes are the codes with which requests may fail because of the fault; none: no request may
	// fail.
	codes []codes.Code
	// restarts means that the fault ends the process under test.
	restarts bool
	// missing returns why the fault cannot be injected on this machine; "" if it can.
	missing func(w *world) string
	// run injects the fault until ctx ends, undoes it, and returns the number of injections.
	run func(ctx context.Context, w *world, r *rand.Rand) (injections int, err error)
}

// String returns the name of the fault.
func (f fault) String() string { return f.name }

// allFaults returns the faults in the order of their rounds.
func allFaults() []fault {
	return slices.Concat(bucketFaults(), cacheFaults(), localFaults(), processFaults(),
		clientFaults())
}

// repeat calls do soon, and then repeatedly until ctx ends, after random pauses of about every.
func repeat(
	ctx context.Context, r *rand.Rand, every time.Duration, do func() error,
) (n int, err error) {
	next := func() time.Duration { return every/2 + time.Duration(r.Int64N(int64(every))) }
	for wait := every / 10; pause(ctx, wait); wait = next() {
		if err := do(); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
