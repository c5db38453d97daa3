package promql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/flaky"
	"larder/interop/internal/fleet"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/settings"
)

// everything asks for more series than fit into one frame.
const everything = `count by (cluster, __name__) ({__name__=~".+"})`

// moment is within the second block.
const moment = fleet.From + 3*fleet.BlockMillis/2 + 777

// TestQueryPartialResponse: if a store fails after some frames, is cut off, or falls silent, the
// consequences are the same for larder and Thanos's store. With partial responses: the data of the
// healthy store and a warning that names the other one. Without them: an error. This holds with
// eager retrieval and with lazy.
func TestQueryPartialResponse(t *testing.T) {
	s := newStage(t)
	seed := settings.Seed(t)
	eu, us := oneCluster(t, s, seed, "eu"), oneCluster(t, s, seed+1, "us")
	healthy := s.larderOver(us.Dir)
	larder, thanos := s.larderOver(eu.Dir), s.storeOver(eu.Dir)

	type named struct {
		name string
		flaky.Fault
	}
	faults := []named{
		{"cut", flaky.Fault{Kind: flaky.Cut, After: 2}},
		{"silent", flaky.Fault{Kind: flaky.Stall, After: 1}},
		{
			"resources exhausted",
			flaky.Fault{Kind: flaky.Fail, Code: codes.ResourceExhausted, After: 1},
		},
		{"internal error", flaky.Fault{Kind: flaky.Fail, Code: codes.Internal, After: 4}},
		{"unavailable", flaky.Fault{Kind: flaky.Fail, Code: codes.Unavailable, After: 1}},
	}
	if settings.Full() {
		faults = append(
			faults, named{"silent from the start", flaky.Fault{Kind: flaky.Stall}},
			named{"cut at once", flaky.Fault{Kind: flaky.Cut}},
		)
	}
	for _, k := range []int{0, 1, 2, 5, 7} {
		faults = append(
			faults, named{"aborted", flaky.Fault{Kind: flaky.Fail, Code: codes.Aborted, After: k}},
		)
	}
	for _, strategy := range []string{"eager", "lazy"} {
		behind := func(store string) *flaky.Proxy {
			p, err := flaky.Start(store)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
			return p
		}
		overLarder, overThanos := behind(larder), behind(thanos)
		// Silence is noticed after the timeout, everything else at once. A healthy store on a busy
		// machine must not seem silent.
		q := s.querier(
			[]string{healthy, overLarder.Addr, overThanos.Addr}, "--grpc.proxy-strategy="+strategy,
			"--store.response-timeout=2s",
		)
		whole := instant(t, q, everything, neighbour.Params{}, healthy)
		if !whole.OK() || len(whole.Series) < 10 {
			t.Fatalf("the healthy store answers %+v", whole)
		}
		n := 0
		for _, fault := range faults {
			for _, partial := range []bool{true, false} {
				about := fmt.Sprintf(
					"seed %d: %s, %s after %d frames, partial_response=%t", seed, strategy,
					fault.name, fault.After, partial,
				)
				p := neighbour.Params{PartialResponse: &partial}
				var want, got *neighbour.Result
				var both errgroup.Group // Silence takes its time.
				outcome := func(x *flaky.Proxy, into **neighbour.Result) {
					both.Go(func() (err error) {
						x.Break(&fault.Fault)
						*into, err = q.Instant(
							context.Background(), everything, moment,
							at(p, []string{healthy, x.Addr}),
						)
						if err == nil && x.Break(nil) == 0 {
							err = errors.New("the fault was not met")
						}
						return err
					})
				}
				outcome(overThanos, &want)
				outcome(overLarder, &got)
				if err := both.Wait(); err != nil {
					t.Fatalf("%s: %v", about, err)
				}
				if partial {
					wantWarned(t, about, got, overLarder.Addr, whole)
				} else if got.OK() || len(got.Series) > 0 {
					t.Errorf("%s: answered with %d series, want an error", about, len(got.Series))
				}
				if d := sameClass(want, got, overThanos.Addr, overLarder.Addr); d != "" {
					t.Errorf("%s: %s", about, d)
				}
				// What was in flight when a connection broke may or may not arrive.
				if fault.Kind == flaky.Fail {
					if d := neighbour.Diff(want, got, 0); d != "" {
						t.Errorf("%s: the data before the error: %s", about, d)
					}
				}
				n++
			}
		}
		// A store that has recovered is asked again.
		if r := instant(t, q, everything, neighbour.Params{PartialResponse: new(false)}, healthy,
			overLarder.Addr); !r.OK() ||
			len(r.Warnings) > 0 {
			t.Errorf("%s: after the faults: %+v", strategy, r.Answer)
		}
		t.Logf(
			"proved: %s retrieval: %d failures, with and without partial responses, have the same result as with Thanos's store",
			strategy, n,
		)
	}
}

// TestQueryPartialResponseOfDamage: larder fails at a damaged chunk in the middle of an answer, and
// the Querier treats it like any store that aborts.
func TestQueryPartialResponseOfDamage(t *testing.T) {
	s := newStage(t)
	seed := settings.Seed(t)
	eu, us := oneCluster(t, s, seed, "eu"), oneCluster(t, s, seed+1, "us")
	block := flip(t, eu.Dir)
	healthy, damaged := s.larderOver(us.Dir), s.larderOver(eu.Dir)
	for _, strategy := range []string{"eager", "lazy"} {
		q := s.querier([]string{healthy, damaged}, "--grpc.proxy-strategy="+strategy)
		whole := instant(t, q, everything, neighbour.Params{}, healthy)
		warned := instant(
			t, q, everything, neighbour.Params{PartialResponse: new(true)}, healthy, damaged,
		)
		wantWarned(t, strategy, warned, damaged, whole)
		if w := strings.Join(warned.Warnings, "; "); !strings.Contains(w, block) {
			t.Errorf("%s: the warning %q does not name block %s", strategy, w, block)
		}
		refused := instant(
			t, q, everything, neighbour.Params{PartialResponse: new(false)}, healthy, damaged,
		)
		if refused.OK() || refused.ErrorType != "execution" ||
			!strings.Contains(refused.Error, block) {
			t.Errorf(
				"%s: got %+v, want an error that names block %s", strategy, refused.Answer, block,
			)
		}
		// Queries that do not need the block are answered.
		if r, err := q.Instant(context.Background(), everything, fleet.From+fleet.BlockMillis/2,
			neighbour.Params{PartialResponse: new(false)}); err != nil ||
			!r.OK() ||
			len(r.Series) <= len(whole.Series) {
			t.Errorf("%s: a query about another block: %+v, %v", strategy, r, err)
		}
	}
	t.Log(
		"proved: a damaged chunk is a warning or an error that names the block, with eager and with lazy retrieval",
	)
}

// oneCluster makes a bucket of the blocks of one cluster.
func oneCluster(t *testing.T, s *stage, seed uint64, cluster string) *fleet.Bucket {
	t.Helper()
	b := &fleet.Bucket{Dir: s.folder("bucket")}
	if _, err := b.Add(s.heads(seed), map[string]string{"cluster": cluster}); err != nil {
		t.Fatal(err)
	}
	return b
}

// flip changes a byte of a chunk in the middle of the second block and returns the block's id.
func flip(t *testing.T, bucket string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(bucket, "*", "chunks", "000001"))
	if err != nil || len(files) != 3 {
		t.Fatalf("chunk files: %v, %v", files, err)
	}
	b, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) / 2; i < len(b)/2+400; i++ {
		b[i] ^= 0x55
	}
	if err := os.WriteFile(files[1], b, 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Base(filepath.Dir(filepath.Dir(files[1])))
}

func instant(
	t *testing.T, q *neighbour.Component, query string, p neighbour.Params, stores ...string,
) *neighbour.Result {
	t.Helper()
	r, err := q.Instant(context.Background(), query, moment, at(p, stores))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantWarned demands an answer with all data of the healthy store and a warning that names the
// other one.
func wantWarned(
	t *testing.T, about string, got *neighbour.Result, store string, healthy *neighbour.Result,
) {
	t.Helper()
	if !got.OK() || got.Code != 200 {
		t.Errorf("%s: got %+v, want an answer with a warning", about, got.Answer)
		return
	}
	if w := strings.Join(got.Warnings, "; "); !strings.Contains(w, store) {
		t.Errorf("%s: warnings %q do not name the store %s", about, w, store)
	}
	have := &neighbour.Result{Type: got.Type}
	for _, x := range got.Series {
		if strings.Contains(x.Labels, `cluster="us"`) {
			have.Series = append(have.Series, x)
		}
	}
	if d := neighbour.Diff(healthy, have, 0); d != "" {
		t.Errorf("%s: the healthy store's part: %s", about, d)
	}
}

// sameClass compares what a client can tell apart without reading texts: codes, and whether
// warnings and errors name the store.
func sameClass(want, got *neighbour.Result, wantStore, gotStore string) string {
	class := func(r *neighbour.Result, store string) string {
		return fmt.Sprintf(
			"status %d %s, %d warnings, names the store: %t", r.Code, r.ErrorType, len(r.Warnings),
			strings.Contains(strings.Join(append(r.Warnings, r.Error), " "), store),
		)
	}
	if a, b := class(want, wantStore), class(got, gotStore); a != b {
		return fmt.Sprintf(
			"over Thanos's store %s (%s %q), got %s (%s %q)", a, want.Error, want.Warnings, b,
			got.Error, got.Warnings,
		)
	}
	return ""
}

// TestQueryLimits: a request that exceeds a limit of the store fails for the client in the same way
// as with Thanos's store.
func TestQueryLimits(t *testing.T) {
	s := newStage(t)
	seed := settings.Seed(t)
	bucket := oneCluster(t, s, seed, "eu")
	n := 0
	for _, limit := range []string{"--store.limits.request-series=40",
		"--store.limits.request-samples=6000", "--store.grpc.downloaded-bytes-limit=1KB"} {
		larder, thanos := s.larderOver(bucket.Dir, limit), s.storeOver(bucket.Dir, limit)
		q := s.querier([]string{larder, thanos})
		for _, query := range []string{everything, `up{job="api"}`, `count(pod_ready)`} {
			for _, partial := range []bool{true, false} {
				p := neighbour.Params{PartialResponse: &partial}
				want, got := instant(t, q, query, p, thanos), instant(t, q, query, p, larder)
				about := fmt.Sprintf(
					"seed %d: %s: %s, partial_response=%t", seed, limit, query, partial,
				)
				if d := sameClass(want, got, thanos, larder); d != "" {
					t.Errorf("%s: %s", about, d)
				}
				if d := neighbour.Diff(want, got, 0); d != "" {
					t.Errorf("%s: %s", about, d)
				}
				if query == everything && !partial &&
					(got.Code != 422 || !strings.Contains(got.Error, "limit")) {
					t.Errorf("%s: got %+v, want 422 and an error about a limit", about, got.Answer)
				}
				n++
			}
		}
	}
	t.Logf("proved: %d queries beyond limits have the same result as with Thanos's store", n)
}
