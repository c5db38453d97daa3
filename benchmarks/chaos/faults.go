package main

import (
	"context"
	"math/rand/v2"
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
	var all []fault
	for _, some := range [][]fault{bucketFaults(), cacheFaults(), localFaults(), processFaults(), clientFaults()} {
		all = append(all, some...)
	}
	return all
}

// repeat does something soon, and then again and again until ctx ends, after pauses of every, more
// or less.
func repeat(
	ctx context.Context, r *rand.Rand, every time.Duration, do func() error,
) (n int, err error) {
	for wait := every / 10; pause(ctx, wait); wait = every/2 + time.Duration(r.Int64N(int64(every))) {
		if err := do(); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
