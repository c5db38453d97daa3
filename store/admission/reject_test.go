package admission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestRejectionNamesWhatIsMissing checks that a request that could not wait, or waited in vain, is
// told what it lacks: a place, a place of its tenant, or bytes.
func TestRejectionNamesWhatIsMissing(t *testing.T) {
	const lean = 10 << 20
	for name, c := range map[string]struct {
		bytes int64 // that the running request reserves
		want  string
	}{
		"tenant": {1 << 20, "one of 1 places for Series requests of its tenant " +
			"(max_concurrent of --store.limits.config)"},
		"bytes": {lean - 1<<20, "1.1 MiB of the 10 MiB that --store.request-bytes (16.5 MiB) " +
			"leaves for requests"},
	} {
		synctest.Test(t, func(t *testing.T) {
			limits := LimitOptions{}
			if name == "tenant" {
				limits.MaxConcurrent = 1
			}
			a := New(GateOptions{MaxConcurrent: 8}, AllowanceOptions{
				Bytes: lean, SmallLane: 1 << 20, SmallRequest: 1 << 20, FlagBytes: 16<<20 + 600<<10,
			}, NewLimits(limits, nil, nil), nil)
			running, err := admit(t.Context(), a, "a", SeriesRequest, c.bytes)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = admit(ctx, a, "a", SeriesRequest, 1<<20+1)
			want := "waited 1s for " + c.want + ": context deadline exceeded"
			if status.Convert(err).Message() != want {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
			running.Close()
			checkIdle(t, a)
		})
	}
}

// TestFullQueueNamesWhatIsMissing checks that a request which finds the queue full of requests that
// lack bytes is not told that places are missing.
func TestFullQueueNamesWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 8, MaxWaiting: 1},
			AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 10}, nil, nil)
		running := mustReserve(t, a, 80)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = admit(ctx, a, "a", SeriesRequest, 15) }()
		synctest.Wait()
		_, err := admit(ctx, a, "a", SeriesRequest, 15)
		want := "1 Series requests wait for bytes of the 100 bytes of the request allowance " +
			"(--store.request-bytes), and no more may wait (--store.grpc.series-max-waiting): " +
			"retry later"
		if st := status.Convert(err); st.Code() != codes.ResourceExhausted || st.Message() != want {
			t.Errorf("got %v, want ResourceExhausted: %s", err, want)
		}
		cancel()
		synctest.Wait()
		running.Close()
		checkIdle(t, a)
	})
}

// TestNeedsAreRoundedUp checks that a need beyond a limit also looks larger in an error.
func TestNeedsAreRoundedUp(t *testing.T) {
	for n, want := range map[int64][2]string{
		0:         {"0 bytes", "0 bytes"},
		1<<20 - 1: {"1048575 bytes", "1048575 bytes"},
		1 << 20:   {"1 MiB", "1 MiB"},
		1<<20 + 1: {"1 MiB", "1.1 MiB"},
		3 << 19:   {"1.5 MiB", "1.5 MiB"},
		5<<30 - 1: {"5119.9 MiB", "5120 MiB"},
		5<<30 + 1: {"5120 MiB", "5120.1 MiB"},
	} {
		if got := [2]string{mib(n), mibUp(n)}; got != want {
			t.Errorf("%d bytes: got %q, want %q", n, got, want)
		}
	}
}
