package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store/storepb"
)

// processFaults are faults of the process itself.
func processFaults() []fault {
	return []fault{
		{name: "kill-9", restarts: true, codes: []codes.Code{codes.Unavailable},
			run: func(ctx context.Context, w *world, r *rand.Rand) (int, error) {
				return repeat(ctx, r, 2*time.Second, func() error {
					w.tested.Kill()
					return w.tested.start(context.WithoutCancel(ctx))
				})
			}},
		{name: "restart", restarts: true, codes: []codes.Code{codes.Unavailable},
			run: func(ctx context.Context, w *world, r *rand.Rand) (int, error) {
				return repeat(ctx, r, 2*time.Second, func() error {
					if err := w.tested.stop(); err != nil {
						return err
					}
					return w.tested.start(context.WithoutCancel(ctx))
				})
			}},
		{name: "reload-storm", run: func(ctx context.Context, w *world, r *rand.Rand) (int, error) {
			n := 0
			return repeat(ctx, r, 20*time.Millisecond, func() error {
				n++
				w.file("bucket.yaml", fmt.Sprintf("# %d\n%s", n, w.bucketConfig()))
				if n%10 == 0 {
					w.file("relabel.yaml", fmt.Sprintf("# %d\n%s", n, relabelConfig))
				}
				if n%15 == 0 {
					// An invalid file: the last valid one stays in use.
					w.file("relabel.yaml", "- action: [")
				}
				w.tested.Signal(syscall.SIGHUP)
				return nil
			})
		}},
	}
}

// clientFaults are faults of clients. No request of another client may fail because of them.
func clientFaults() []fault {
	return []fault{
		{name: "clients-cancel", run: func(ctx context.Context, w *world, r *rand.Rand) (int,
			error) {
			return w.rude(ctx, r, func(ctx context.Context, e endpoint, r *rand.Rand) {
				ctx, cancel := context.WithTimeout(
					ctx, time.Duration(r.Int64N(int64(60*time.Millisecond))))
				defer cancel()
				// The answer does not matter.
				_, _ = e.ask(ctx, &w.questions[r.IntN(len(w.questions))])
			})
		}},
		{name: "clients-stop-reading", run: stopReading},
	}
}

// sendStall is how long the process under test allows a client to leave its answer unread. The
// clients of the load never reach it.
const sendStall = 2 * time.Second

// stopReading makes clients stop reading in the middle of an answer. Every second client continues
// in time and receives all of it. The others continue too late, and must find that their requests
// were ended.
func stopReading(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	var turn, ended atomic.Int64
	var wrong atomic.Pointer[error]
	n, err := w.rude(ctx, r, func(ctx context.Context, e endpoint, r *rand.Rand) {
		wait, late := time.Duration(r.Int64N(int64(sendStall/4))), turn.Add(1)%2 == 1
		if late {
			wait = 2 * sendStall
		}
		// Requests continue after the end of the round, because their end is checked.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait+endTime)
		defer cancel()
		// The answer is larger than a client's window.
		stream, err := e.store.Series(ctx, &storepb.SeriesRequest{MinTime: 0, MaxTime: dataEnd,
			Matchers: wideMetric()})
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil {
			pause(ctx, wait)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		switch {
		case late && status.Code(err) == codes.Aborted &&
			strings.Contains(err.Error(), "send-stall-timeout"):
			ended.Add(1)
		case late || !errors.Is(err, io.EOF):
			err = fmt.Errorf("a client that stopped reading for %s: its request ended with %w",
				wait, err)
			wrong.CompareAndSwap(nil, &err)
		}
	})
	switch {
	case err != nil:
	case wrong.Load() != nil:
		err = *wrong.Load()
	case ended.Load() == 0:
		err = errors.New("no client stopped reading for too long")
	}
	return n, err
}

// rudeClients is the number of such clients: fewer than the gate has places.
const rudeClients = 8

// rude runs clients of their own beside the workers.
func (w *world) rude(
	ctx context.Context, r *rand.Rand, do func(context.Context, endpoint, *rand.Rand),
) (int, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	for range rudeClients {
		// The window does not grow, so that a client that does not read blocks the server.
		conn, err := dial(w.tested.GRPC, grpc.WithInitialWindowSize(64<<10),
			grpc.WithInitialConnWindowSize(64<<10))
		if err != nil {
			return 0, err
		}
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		wg.Go(func() {
			defer conn.Close()
			for e := newEndpoint(conn); ctx.Err() == nil; n.Add(1) {
				do(ctx, e, r)
			}
		})
	}
	wg.Wait()
	return int(n.Load()), nil
}
