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
	// codes are those that a request which fails of it may have; none: no request may fail.
	codes []codes.Code
	// restarts says that the process under test ends with it.
	restarts bool
	// missing says why it cannot be done here; "" if it can.
	missing func(w *world) string
	// run breaks things until ctx ends, undoes it, and says how often something was broken.
	run func(ctx context.Context, w *world, r *rand.Rand) (injections int, err error)
}

// allFaults are the rounds, in their order.
func allFaults() []fault {
	return slices.Concat(bucketFaults(), cacheFaults(), localFaults(), processFaults(),
		clientFaults())
}

// repeat does something soon, and then again and again until ctx ends, after pauses of every, more
// or less.
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
