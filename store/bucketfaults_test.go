package store_test

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/internal/bucket/retry"
	"larder/internal/bucket/slots"
	"larder/internal/faultstore"
	"larder/internal/pagecache"
	"larder/store/block"
	"larder/store/storepb"
)

// ask is a request. run returns the whole answer as text.
type ask struct {
	name string
	code codes.Code // expected if the bucket fails
	run  func(ctx context.Context, g *gateway) (string, error)
}

func seriesAsk(name string, req *storepb.SeriesRequest) ask {
	return ask{
		name: "Series " + name,
		code: codes.Aborted,
		run: func(ctx context.Context, g *gateway) (string, error) {
			a, err := g.query(ctx, req)
			if err != nil {
				return "", err
			}
			var all []byte
			for _, s := range a.series {
				if all, err = (proto.MarshalOptions{Deterministic: true}).
					MarshalAppend(append(all, '\n'), s); err != nil {
					return "", err
				}
			}
			return string(all), nil
		},
	}
}

// asks returns requests of each kind for the blocks of blocksOf.
func asks(t *testing.T, metas []*dataset.Meta) []ask {
	t.Helper()
	get := []*storepb.LabelMatcher{
		{Name: "__name__", Value: dataset.WholeMetricName},
		{Name: "method", Value: "GET"},
	}
	regex := wholeMetric(0)
	regex.Matchers = append(regex.Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "handler", Value: "/api/v1/.+"},
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ, Name: "code", Value: "500"})
	few := wholeMetric(0)
	few.Matchers = append(few.Matchers, &storepb.LabelMatcher{Name: "handler", Value: "/metrics"},
		&storepb.LabelMatcher{Name: "code", Value: "503"},
		&storepb.LabelMatcher{Name: "method", Value: "PUT"})
	labelsOnly := wholeMetric(64)
	labelsOnly.SkipChunks = true
	labels := func(name string, run func(ctx context.Context, g *gateway) ([]string, error)) ask {
		return ask{
			name: name,
			code: codes.Internal,
			run: func(ctx context.Context, g *gateway) (string, error) {
				got, err := run(ctx, g)
				return strings.Join(got, "\n"), err
			},
		}
	}
	all := []ask{
		seriesAsk("of both blocks", wholeMetric(32)),
		seriesAsk("of one block", only(t, metas[1])),
		seriesAsk("of a regex", regex),
		seriesAsk("of few", few),
		seriesAsk("without chunks", labelsOnly),
		labels("LabelNames", func(ctx context.Context, g *gateway) ([]string, error) {
			r, err := g.client.LabelNames(ctx, &storepb.LabelNamesRequest{End: 1 << 50})
			return r.GetNames(), err
		}),
		labels("LabelNames with matchers", func(ctx context.Context, g *gateway) ([]string, error) {
			r, err := g.client.LabelNames(ctx,
				&storepb.LabelNamesRequest{End: 1 << 50, Matchers: get})
			return r.GetNames(), err
		}),
		labels("LabelValues", func(ctx context.Context, g *gateway) ([]string, error) {
			r, err := g.client.LabelValues(ctx,
				&storepb.LabelValuesRequest{Label: "handler", End: 1 << 50})
			return r.GetValues(), err
		}),
		labels(
			"LabelValues with matchers",
			func(ctx context.Context, g *gateway) ([]string, error) {
				r, err := g.client.LabelValues(ctx,
					&storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: get})
				return r.GetValues(), err
			},
		),
	}
	if testing.Short() {
		return []ask{all[0], all[1], all[3], all[6], all[7]} // the last reads only the header
	}
	return all
}

// heldSlots counts the slots in use.
type heldSlots struct{ held atomic.Int64 }

func (s *heldSlots) AcquireFor(context.Context, *slots.Read) error { s.held.Add(1); return nil }
func (s *heldSlots) Release()                                      { s.held.Add(-1) }

// patient is a gateway whose bucket fails on demand, with its answers and open files without
// faults.
type patient struct {
	*gateway
	faults *faultstore.Faults
	slots  *heldSlots
	asks   []ask
	want   []string
	ids    []ulid.ULID
	// retried says that requests to the bucket are retried.
	retried bool

	leaks   goleak.Option
	handles int
	files   []string
}

// startPatient starts a gateway over dir that caches only headers, and records the right answers.
// It must be called within a synctest bubble, because faults wait for time-outs.
func startPatient(t *testing.T, dir string, metas []*dataset.Meta, opts gatewayOptions) *patient {
	t.Helper()
	p := newPatient(t, dir, metas, opts)
	ctx, cancel := context.WithTimeout(context.Background(), forever)
	defer cancel()
	for _, a := range p.asks {
		got, err := a.run(ctx, p.gateway)
		if err != nil || len(got) == 0 {
			t.Fatalf("%s: %d bytes, %v", a.name, len(got), err)
		}
		p.want = append(p.want, got)
	}
	p.settle(t)
	p.leaks, p.handles, p.files = goleak.IgnoreCurrent(), openHandles(t), filesOf(t, p.dir)
	return p
}

// newPatient starts a gateway like startPatient, but sends no requests.
func newPatient(t *testing.T, dir string, metas []*dataset.Meta, opts gatewayOptions) *patient {
	t.Helper()
	p := &patient{faults: faultstore.New(1), slots: &heldSlots{}, asks: asks(t, metas)}
	outer := opts.wrap
	opts.wrap = func(b objstore.Bucket) objstore.Bucket {
		b = faultstore.Wrap(b, p.faults)
		if outer != nil {
			b = outer(b)
		}
		return b
	}
	// With so few bytes, a read that did not release its bytes would block all later ones.
	opts.pages = pagecache.Options{Limiter: p.slots, MaxInFlightBytes: 1}
	p.gateway = startGateway(t, dir, opts)
	t.Cleanup(p.Catalog.Close)
	for _, b := range p.Catalog.View().Blocks {
		p.ids = append(p.ids, b.ID)
	}
	return p
}

// cold returns options without page caches, so that every request reads the bucket.
func cold() gatewayOptions {
	return gatewayOptions{
		indexBytes:    -1,
		chunkBytes:    -1,
		setBytes:      -1,
		postingsBytes: -1,
		pageSize:      1 << 10,
	}
}

// settle waits until no header is being built or saved.
func (p *patient) settle(t *testing.T) {
	t.Helper()
	if err := p.Headers.Wait(context.Background(), slices.Clone(p.ids)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func openHandles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "extents" {
			return fs.SkipDir // saved sizes of files, which appear once
		}
		names = append(names, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// outcome counts how requests ended.
type outcome struct{ right, failed, late int }

// forever is a time within which every request without a deadline must end.
const forever = 24 * time.Hour

// check runs one request. The answer must be right, or an error that names block and object.
func (p *patient) check(t *testing.T, ctx context.Context, i int, out *outcome) {
	t.Helper()
	a := p.asks[i]
	ctx, cancel := context.WithTimeout(ctx, forever)
	defer cancel()
	deadline, _ := ctx.Deadline()
	got, err := a.run(ctx, p.gateway)
	switch {
	case err == nil && got == p.want[i]:
		out.right++
	case err == nil:
		t.Errorf("%s: a wrong answer of %d bytes, want %d", a.name, len(got), len(p.want[i]))
	case status.Code(err) == codes.DeadlineExceeded && !time.Now().Before(deadline):
		out.late++
	case status.Code(err) != a.code:
		t.Errorf("%s: got %v, want %s", a.name, err, a.code)
	default:
		out.failed++
		text := err.Error()
		names := slices.ContainsFunc(p.ids,
			func(id ulid.ULID) bool { return strings.Contains(text, id.String()) })
		if !names || !strings.Contains(text, "/index") && !strings.Contains(text, "/chunks/") {
			t.Errorf("%s: the error does not name block and object: %v", a.name, err)
		}
	}
}

// recovered checks that the gateway works again after the faults: every request is answered, and
// failed ones have left nothing behind.
func (p *patient) recovered(t *testing.T) {
	t.Helper()
	p.faults.Heal()
	ctx, cancel := context.WithTimeout(context.Background(), forever)
	defer cancel()
	for i, a := range p.asks {
		if got, err := a.run(ctx, p.gateway); err != nil || got != p.want[i] {
			t.Errorf("%s, healed: %d bytes, want %d: %v", a.name, len(got), len(p.want[i]), err)
		}
	}
	p.holdsNothing(t)
	if err := goleak.Find(p.leaks); err != nil {
		t.Error(err)
	}
	if n := openHandles(t); n > p.handles {
		t.Errorf("%d files are open, %d more than before", n, n-p.handles)
	}
	if files := filesOf(t, p.dir); !slices.Equal(files, p.files) {
		t.Errorf("on disk are\n%q\nand were before\n%q", files, p.files)
	}
}

// holdsNothing checks that all reservations and slots were released.
func (p *patient) holdsNothing(t *testing.T) {
	t.Helper()
	p.settle(t)
	if n := p.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
	if n := p.slots.held.Load(); n != 0 {
		t.Errorf("%d slots are still in use", n)
	}
}

// phase is a part of a request in which the bucket fails.
type phase struct {
	name string
	// rule narrows a fault to the phase.
	rule func(p *patient, k faultstore.Kind) faultstore.Rule
	// before is called before each request.
	before func(p *patient)
	// kinds are the faults to try; nil: all that are possible for the operations of the phase.
	kinds []faultstore.Kind
}

// section narrows a fault to the index pages of one section.
func section(p *patient, k faultstore.Kind, series bool) faultstore.Rule {
	// The blocks of blocksOf have the same series, so their indexes have the same layout.
	h, release, err := p.Headers.Acquire(context.Background(),
		block.Source(p.Catalog.View().Blocks[0]))
	if err != nil {
		panic(err)
	}
	defer release()
	toc := h.TOC()
	end := toc.SectionEnd(toc.Series, h.IndexSize())
	r := faultstore.Rule{
		Kind:  k,
		Ops:   []string{objstore.OpGetRange},
		Match: func(_, name string) bool { return strings.HasSuffix(name, "/index") },
	}
	if series {
		r.To = end
	} else {
		r.From = end
	}
	return r
}

func forgetHeaders(p *patient) {
	for _, id := range p.ids {
		p.Headers.Forget(id)
	}
}

var readKinds = []faultstore.Kind{
	faultstore.ServerError, faultstore.SlowDown, faultstore.Timeout, faultstore.SlowFirstByte,
	faultstore.Reset, faultstore.AccessDenied, faultstore.Vanished,
	faultstore.StalledBody, faultstore.TruncatedBody, faultstore.ShortBody, faultstore.LongBody,
	faultstore.FlippedBit,
}

func phases() []phase {
	return []phase{
		{
			name: "header build", kinds: readKinds, before: forgetHeaders,
			rule: func(_ *patient, k faultstore.Kind) faultstore.Rule {
				return faultstore.Rule{
					Kind:  k,
					Match: func(_, name string) bool { return strings.HasSuffix(name, "/index") },
				}
			},
		},
		{
			// The other block must not answer alone.
			name: "header build of one block", kinds: readKinds, before: forgetHeaders,
			rule: func(p *patient, k faultstore.Kind) faultstore.Rule {
				return faultstore.Rule{
					Kind:  k,
					Match: func(_, name string) bool { return name == p.ids[0].String()+"/index" },
				}
			},
		},
		{
			name: "postings", kinds: readKinds,
			rule: func(p *patient, k faultstore.Kind) faultstore.Rule {
				return section(p, k, false)
			},
		},
		{
			name: "series", kinds: readKinds,
			rule: func(p *patient, k faultstore.Kind) faultstore.Rule {
				return section(p, k, true)
			},
		},
		{
			name: "chunks", kinds: readKinds,
			rule: func(_ *patient, k faultstore.Kind) faultstore.Rule {
				return faultstore.Rule{
					Kind:  k,
					Match: func(_, name string) bool { return strings.Contains(name, "/chunks/") },
				}
			},
		},
	}
}

// fewSeries is the number of series of a block in tests with many requests for all series. They
// fill more than one page.
func fewSeries() int {
	if testing.Short() {
		return 20
	}
	return 60
}

// TestBucketFaults injects every kind of fault into every phase of requests, first into some calls,
// then into all. Each request is answered correctly or fails with the right code and text. Once the
// bucket works again, so does the gateway.
func TestBucketFaults(t *testing.T) {
	dir, metas := blocksOf(t, fewSeries(), 60_000)
	bare := t.TempDir()
	if err := os.CopyFS(bare, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		damage(t, filepath.Join(bare, m.ULID.String(), "meta.json"), func(b []byte) []byte {
			return []byte(
				strings.NewReplacer(`"files":`, `"files.were":`, `"segment_files":`,
					`"segment_files.were":`).
					Replace(string(b)),
			)
		})
	}
	seeds, rounds := 2, 2
	if testing.Short() {
		seeds, rounds = 1, 1
	}
	for _, retried := range []bool{false, true} {
		for _, ph := range phases() {
			if retried && testing.Short() && ph.name != "header build of one block" {
				continue
			}
			name := ph.name
			if retried {
				name += ", with retries"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					from := dir
					if slices.Contains(ph.kinds, faultstore.ListingError) {
						from = bare
					}
					opts := cold()
					if retried {
						opts.wrap = retrying
					}
					p := startPatient(t, from, metas, opts)
					p.retried = retried
					for _, k := range ph.kinds {
						for seed := range seeds {
							p.suffer(t, &ph, k, uint64(seed), rounds)
						}
					}
				})
			})
		}
	}
}

func retrying(b objstore.Bucket) objstore.Bucket { return retry.Wrap(b, retry.Options{}) }

// mended reports whether a request succeeds although this fault hits every call.
func mended(k faultstore.Kind) bool { return k == faultstore.SlowFirstByte }

// mostHits is the maximum number of failed calls of one request: four for the headers of each of
// two blocks, or two for pages.
const mostHits = 16

// mostFlips is the maximum if a random bit of each answer is flipped. It is larger, because a
// request continues if it does not need the flipped bit.
const mostFlips = 4 * mostHits

// progresses reports whether a read completes although the fault hits each of its calls, because it
// resumes where it was interrupted.
func progresses(k faultstore.Kind) bool {
	return k == faultstore.Reset || k == faultstore.StalledBody || k == faultstore.TruncatedBody ||
		k == faultstore.ShortBody
}

func (p *patient) suffer(t *testing.T, ph *phase, k faultstore.Kind, seed uint64, rounds int) {
	t.Helper()
	what := fmt.Sprintf("%s in %s, seed %d", k, ph.name, seed)
	first := p.faults.Counts()[k]
	rule := ph.rule(p, k)

	// Some calls fail. Many requests run concurrently, one in four with a deadline shorter than the
	// fault.
	r := rand.New(rand.NewPCG(seed, uint64(k)))
	some := rule
	some.Probability = 0.2
	p.faults.Set(some)
	var (
		wg  sync.WaitGroup
		sum outcome
		mu  sync.Mutex
	)
	for range rounds {
		if ph.before != nil {
			ph.before(p)
		}
		for range 6 {
			i, patience := r.IntN(
				len(p.asks),
			), cmp.Or(time.Duration(r.IntN(4))*time.Hour, 3*time.Second)
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				var out outcome
				p.check(t, ctx, i, &out)
				mu.Lock()
				defer mu.Unlock()
				sum.right += out.right
				sum.failed += out.failed
				sum.late += out.late
			})
		}
		wg.Wait()
	}
	// Every call fails. Requests run one after the other, so that each meets the fault.
	most := mostHits
	if k == faultstore.FlippedBit {
		most = mostFlips
	}
	failing := rule
	failing.At = int64(seed) // 0: anywhere
	p.faults.Set(failing)
	for i, a := range p.asks {
		if ph.before != nil {
			ph.before(p)
		}
		var out outcome
		synctest.Wait() // for abandoned reads of the previous request
		before := p.faults.Total()
		p.check(t, context.Background(), i, &out)
		switch hits := p.faults.Total() - before; {
		case out.late > 0:
			t.Errorf("%s: %s did not end", what, a.name)
		case (hits == 0 || mended(k)) && out.right != 1:
			t.Errorf("%s: %s was not answered", what, a.name)
		// the flipped bit may not be needed
		case hits > 0 && out.right == 1 && !mended(k) && !(p.retried && progresses(k)) &&
			k != faultstore.FlippedBit:
			t.Errorf("%s: %s was answered although every read of what it needs fails", what, a.name)
		case hits > most && (!p.retried || k == faultstore.AccessDenied ||
			k == faultstore.Vanished):
			t.Errorf("%s: %s: %d calls to the bucket failed", what, a.name, hits)
		}
	}
	p.recovered(t)
	if n := p.faults.Counts()[k] - first; n == 0 {
		t.Errorf("%s: the fault has hit no call", what)
	} else {
		t.Logf("%s: %d injections; of requests side by side %d were answered, %d failed, %d ran out of time", what, n, sum.right, sum.failed, sum.late)
	}
}
