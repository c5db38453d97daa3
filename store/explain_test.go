package store_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/explanation"
	"larder/store"
	"larder/store/admission"
	"larder/store/storepb"
)

// explainedBucket writes a block with one metric.
func explainedBucket(t *testing.T) (dir string, req *storepb.SeriesRequest) {
	t.Helper()
	dir = t.TempDir()
	spec := dataset.WholeMetric("explained", 1, 400, 30_000)
	metas, err := spec.Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meta := metas[0]
	return dir, &storepb.SeriesRequest{
		MinTime: meta.MinTime, MaxTime: meta.MaxTime,
		Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_NEQ, Name: "__name__", Value: ""},
		},
	}
}

// TestExplainIsRefusedLikeTheRequest checks that limits and checks apply to explanations, also to
// those of a tenant with limits of its own.
func TestExplainIsRefusedLikeTheRequest(t *testing.T) {
	dir, base := explainedBucket(t)
	with := func(change func(*storepb.SeriesRequest)) *storepb.SeriesRequest {
		req := &storepb.SeriesRequest{
			MinTime: base.MinTime, MaxTime: base.MaxTime, Matchers: base.Matchers,
		}
		if change != nil {
			change(req)
		}
		return req
	}
	for name, c := range map[string]struct {
		server  func(*store.Options)
		req     *storepb.SeriesRequest
		tenant  string
		unready bool
	}{
		"a wrong expression": {req: with(func(r *storepb.SeriesRequest) {
			r.Matchers = []*storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "a", Value: "("},
			}
		})},
		"a costly expression": {req: with(func(r *storepb.SeriesRequest) {
			r.Matchers = nil
			for range 100 {
				r.Matchers = append(r.Matchers, &storepb.LabelMatcher{
					Type: storepb.LabelMatcher_RE, Name: "a", Value: "(x{1,30}y{1,30}){1,30}z",
				})
			}
		})},
		"many names": {req: with(func(r *storepb.SeriesRequest) {
			r.WithoutReplicaLabels = slices.Repeat([]string{"x"}, 2000)
		})},
		"too many series": {
			req: with(nil), server: func(o *store.Options) { o.Limits.Series = 10 },
		},
		"too many bytes": {
			req: with(nil), server: func(o *store.Options) { o.Limits.Bytes = 100 },
		},
		"too many bytes of series": {
			req: with(nil), server: func(o *store.Options) { o.Limits.Bytes = 9 << 10 },
		},
		"too many series of a tenant": {
			req: with(nil), tenant: "small", server: func(o *store.Options) {
				o.Tenants = map[string]admission.LimitOptions{"small": {Series: 10}}
			},
		},
		"no such memory": {
			req: with(nil), server: func(o *store.Options) {
				o.Allowance = admission.AllowanceOptions{
					Bytes: 4096, SmallLane: 1024, SmallRequest: 512,
				}
			},
		},
		"not ready": {req: with(nil), unready: true},
	} {
		t.Run(name, func(t *testing.T) {
			opts := smallGateway()
			opts.server = c.server
			if c.unready {
				opts.firstSync = func(*gateway) error { return nil }
			}
			g := startGateway(t, dir, opts)
			ctx := metadata.NewIncomingContext(t.Context(),
				metadata.Pairs("thanos-tenant", c.tenant))
			_, ran := g.Server.ExplainRun(ctx, c.req)
			_, foreseen := g.Server.Explain(ctx, c.req)
			client := metadata.AppendToOutgoingContext(t.Context(), "thanos-tenant", c.tenant)
			_, asked := g.query(client, c.req)
			if asked == nil {
				t.Fatal("the request itself was answered")
			}
			for how, err := range map[string]error{"run": ran, "forecast": foreseen} {
				if status.Code(err) != status.Code(asked) {
					t.Errorf("%s ended with %v, the request with %v", how, err, asked)
				}
			}
			if text := status.Convert(ran).Message(); text != status.Convert(asked).Message() {
				t.Errorf("run ended with %v, the request with %v", ran, asked)
			}
		})
	}
}

// TestExplainSaysWhichLimitsAreUncertain forecasts requests whose matchers are checked on the
// series, and whose chunks are estimated. The forecast cannot tell whether a limit is exceeded, and
// says so exactly if it is possible.
func TestExplainSaysWhichLimitsAreUncertain(t *testing.T) {
	dir := t.TempDir()
	metas, err := dataset.WholeMetric("explained", 1, 20_000, 1_800_000).
		Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	req := &storepb.SeriesRequest{
		MinTime: metas[0].MinTime, MaxTime: metas[0].MaxTime,
		Matchers: []*storepb.LabelMatcher{
			{Name: "instance", Value: "10.32.0.1:8080"},
			{Type: storepb.LabelMatcher_RE, Name: "method", Value: "GET|POST|PUT"},
		},
	}
	const may = "The request may be rejected"
	f := func(limits admission.LimitOptions, asked codes.Code, want string) {
		t.Helper()
		opts := smallGateway()
		opts.pageSize = 512
		opts.server = func(o *store.Options) { o.Limits = limits }
		g := startGateway(t, dir, opts)
		forecast := func() string {
			t.Helper()
			e, err := g.Server.Explain(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if b := e.Blocks[0]; b.Pending == 0 && b.From != explanation.FromSet {
				t.Fatalf("no matcher is pending: %+v", b)
			}
			return strings.Join(e.Notes, "\n")
		}
		notes := forecast()
		if want == "" && strings.Contains(notes, may) || !strings.Contains(notes, want) {
			t.Errorf("limits %+v: notes %q, want %q", limits, notes, want)
		}
		_, err := g.query(t.Context(), req)
		if code := status.Code(err); code != asked {
			t.Errorf("limits %+v: the request ended with %v, want %v", limits, err, asked)
		}
		if err != nil {
			return
		}
		// The series are in memory now. The limits are known to be kept.
		if notes := forecast(); strings.Contains(notes, may) {
			t.Errorf("limits %+v, with series in memory: notes %q", limits, notes)
		}
	}
	f(admission.LimitOptions{}, codes.OK, "")
	f(admission.LimitOptions{Series: 200, Samples: 1 << 20, Bytes: 1 << 30}, codes.OK, "")
	f(admission.LimitOptions{Series: 150}, codes.OK,
		"The request may be rejected: up to 200 series match, and the limit is 150.")
	f(admission.LimitOptions{Series: 10}, codes.ResourceExhausted,
		"The request may be rejected: up to 200 series match, and the limit is 10.")
	f(admission.LimitOptions{Samples: 120 * 5}, codes.ResourceExhausted,
		"chunks match, and the limit is 5.")
	f(admission.LimitOptions{Bytes: 70_000}, codes.ResourceExhausted,
		"bytes are needed, and the limit is 70000.")
}

// TestExplainKnowsTheCaches explains a request before it ran, after its postings are kept, and
// after its series are kept.
func TestExplainKnowsTheCaches(t *testing.T) {
	dir, req := explainedBucket(t)
	opts := smallGateway()
	g := startGateway(t, dir, opts)
	explain := func() *explanation.Explanation {
		t.Helper()
		e, err := g.Server.Explain(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Blocks) != 1 || e.Queried != 1 {
			t.Fatalf("%d blocks of %d, want 1", len(e.Blocks), e.Queried)
		}
		return e
	}
	cold := explain()
	if b := cold.Blocks[0]; b.From != explanation.FromPostings || b.Postings.Read.Requests == 0 ||
		b.Chunks.Read.Requests == 0 || b.Sum.Read.USD <= 0 || cold.Trips == nil || *cold.Trips < 2 {
		t.Errorf("cold: %+v", cold)
	}
	g.bucket.take()
	if b := explain().Blocks[0]; b.From != explanation.FromKept ||
		b.Postings.Read.Requests != 0 || b.Postings.Needed.Requests == 0 {
		t.Errorf("with kept postings: %+v", b)
	}
	if counts, _ := g.bucket.take(); len(counts) > 0 {
		t.Errorf("with kept postings, explaining read %v", counts)
	}
	first, err := g.Server.ExplainRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	counts, bytes := g.bucket.take()
	sum := first.Total.Sum.Read
	if want := int64(counts["index"] + counts["chunks"]); sum.Requests != want || want == 0 ||
		sum.Bytes != bytes["index"]+bytes["chunks"] || first.Run.Series != 400 ||
		first.Trips != nil {
		t.Errorf("run reports %+v, the bucket %v %v", first.Total.Sum, counts, bytes)
	}
	for range 3 { // the set is built by a repeated request
		if _, err := g.query(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	g.bucket.take()
	warm := explain()
	b := warm.Blocks[0]
	if b.From != explanation.FromSet || warm.Total.Sum.Read.Requests != 0 ||
		warm.Trips == nil || *warm.Trips != 0 ||
		b.Chunks.Items != first.Run.Chunks || b.Chunks.Estimated || b.Chunks.Memory == 0 {
		t.Errorf("warm: %+v", b)
	}
	if counts, _ := g.bucket.take(); len(counts) > 0 {
		t.Errorf("warm, explaining read %v", counts)
	}
	if fmt.Sprint(b.Chunks.Needed) == fmt.Sprint(b.Chunks.Read) {
		t.Errorf("warm: needed and read are both %v", b.Chunks.Read)
	}
}

// TestExplainOfAFailure checks that a run that fails says what it has read until then.
func TestExplainOfAFailure(t *testing.T) {
	dir, req := explainedBucket(t)
	g := startGateway(t, dir, smallGateway())
	g.bucket.setOnRead(func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
		if objectKind(name) != "chunks" {
			return body, nil
		}
		return nil, errors.Join(errors.New("bucket is away"), body.Close())
	})
	e, err := g.Server.ExplainRun(t.Context(), req)
	if status.Code(err) != codes.Aborted {
		t.Fatalf("got %v, want Aborted", err)
	}
	if e == nil || len(e.Blocks) != 1 {
		t.Fatalf("got %+v, want the block that failed", e)
	}
	b := e.Blocks[0]
	if b.Postings.Read.Requests == 0 || b.Chunks.Pages == 0 || e.Run == nil ||
		len(e.Run.Stages) == 0 || e.Run.Seconds == 0 {
		t.Errorf("got %+v, %+v", b, e.Run)
	}
}
