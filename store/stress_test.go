package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/admission"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// stressTime returns the duration of the test: seconds in `make test`, LARDER_STRESS in `make
// chaos`.
func stressTime(t *testing.T) time.Duration {
	if text := os.Getenv("LARDER_STRESS"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("LARDER_STRESS: %v", err)
		}
		return d
	}
	if testing.Short() {
		return 5 * time.Second
	}
	return 8 * time.Second
}

// The bucket consists of blocks that differ in the external label "part". Some stay. Some are
// replaced, as by a compactor, with a block of the same content; the old block is deleted at once.
// Some are marked for deletion, deleted when no request can use them any more, and later restored.
const (
	stressParts    = 6
	firstReplaced  = 2
	firstMoving    = 4
	stressWorkers  = 6
	stressTenants  = 3
	partLabel      = "part"
	deletionMark   = "deletion-mark.json"
	markedLongAgo  = 1_000_000_000
	stressHeaderMS = 3
	// stressRequests and stressMoves are the minimum numbers of requests and moves.
	stressRequests = 200
	stressMoves    = 10
)

// stress is a gateway, the disturbances around it, and the right answers.
type stress struct {
	*testing.T
	g    *gateway
	dir  string // the bucket
	away string // folder of the parts that are not in the bucket
	// headers is where header files are.
	headers string
	remote  *bytecachetest.Remote
	sick    atomic.Bool // the remote cache does not answer
	hangs   atomic.Bool // the remote cache answers only after its deadline

	questions []*storepb.SeriesRequest
	want      []map[string][]string // series by question and part

	clock    atomic.Int64                // number of requests that have begun
	running  [stressWorkers]atomic.Int64 // clock at the start of a worker's request; 0 if none runs
	replaced atomic.Int64                // odd while a block is being replaced
	// moment makes listings atomic, same as in a real bucket: it is held during listings and while
	// a folder appears or disappears.
	moment sync.RWMutex

	asked, aborted, cancelled, views, moved atomic.Int64
}

func stressLayout() dataset.Layout {
	l := dataset.Layout{Name: "stress"}
	for i := range stressParts {
		b := dataset.Block{
			MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 7_200_000, Interval: 60_000,
			Labels: labels.FromStrings("cluster", "eu", partLabel, fmt.Sprintf("p%d", i)),
			Series: dataset.Service{
				Name:      fmt.Sprintf("service-%d", i),
				Namespace: "stress",
				Pods:      3,
				Handlers:  2,
			}.Series(uint64(i)),
		}
		for j := range b.ID {
			b.ID[j] = byte(i*16 + j)
		}
		b.ID[0] = 1
		l.Blocks = append(l.Blocks, b)
	}
	return l
}

// TestStress sends all kinds of requests to one gateway while syncs run, blocks are replaced,
// deleted and restored, headers are closed, caches are too small and the remote cache fails, rules
// and limits are reloaded, blocks are warmed and clients cancel. Each answer must have all series
// of each block or none, and none only if the block appeared or disappeared meanwhile. At the end
// nothing may be left behind.
func TestStress(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("everything at once", func(t *testing.T) {
		s := newStress(t)
		s.run(stressTime(t))
		s.settle()
	})
	goleak.VerifyNone(t, leaks)
	if open := openFiles(t, ulid.ULID{}); len(open) > 0 {
		t.Errorf("files of headers are still open: %v", open)
	}
}

func newStress(t *testing.T) *stress {
	s := &stress{T: t, dir: t.TempDir(), away: t.TempDir(), remote: bytecachetest.NewRemote()}
	if _, err := stressLayout().Write(t.Context(), s.dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.remote.Before = func(ctx context.Context) {
		if s.hangs.Load() {
			wait(ctx, 10*time.Millisecond) // a memcached client has a deadline of its own
		}
	}
	s.remote.Answer = func(_ []bytecache.ID, values [][]byte) {
		if s.sick.Load() {
			clear(values)
		}
	}
	if !t.Run("alone", func(t *testing.T) { s.learn(t) }) {
		t.FailNow()
	}
	s.g = startGateway(t, s.dir, gatewayOptions{
		indexBytes: 256 << 10, setBytes: 64 << 10, postingsBytes: 16 << 10, chunkBytes: 256 << 10,
		pageSize: 1 << 10,
		remote:   s.remote, refreshEvery: time.Millisecond,
		wrap: func(b objstore.Bucket) objstore.Bucket { return listedAtOnce{b, &s.moment} },
		headers: func(o *indexheader.Options) {
			o.IdleTimeout, s.headers = stressHeaderMS*time.Millisecond, o.Dir.String()
		},
		server: func(o *store.Options) {
			o.Allowance, o.Gate = admission.AllowanceOptions{
				Bytes: 8 << 20,
			}, admission.GateOptions{
				MaxConcurrent: stressWorkers - 2,
			}
		},
		viewChanged: func(g *gateway, _, cur *catalog.View) {
			s.views.Add(1)
			g.Headers.Keep(func(id ulid.ULID) bool { return cur.ByID(id) != nil })
		},
	})
	return s
}

// learn creates the questions and gets the right answers from an undisturbed gateway.
func (s *stress) learn(t *testing.T) {
	re, eq := storepb.LabelMatcher_RE, storepb.LabelMatcher_EQ
	for _, ms := range [][]*storepb.LabelMatcher{
		{{Type: re, Name: "__name__", Value: ".+"}},
		{{Type: eq, Name: "__name__", Value: dataset.WholeMetricName}},
		{{Type: eq, Name: "__name__", Value: dataset.WholeMetricName},
			{Type: re, Name: "code", Value: "4..|500"},
			{Type: re, Name: "pod", Value: ".*[a-m].*"}},
		{{Type: eq, Name: "__name__", Value: "up"}, {Type: re, Name: partLabel, Value: "p[0-4]"}},
		{{Type: re, Name: "__name__", Value: "http_request_duration_seconds_bucket"},
			{Type: storepb.LabelMatcher_NEQ, Name: "le", Value: "+Inf"}},
	} {
		for _, skip := range []bool{false, true} {
			for _, without := range [][]string{nil, {"cluster"}} {
				s.questions = append(s.questions, &storepb.SeriesRequest{
					MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 3_600_000, Matchers: ms,
					SkipChunks: skip, WithoutReplicaLabels: without,
					ResponseBatchSize: int64(len(s.questions)),
				})
			}
		}
	}
	g := startGateway(t, s.dir, gatewayOptions{})
	for i, q := range s.questions {
		a, err := g.query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		parts := byPart(a)
		if len(parts) < stressParts-1 {
			t.Fatalf("question %d is answered by %d parts", i, len(parts))
		}
		s.want = append(s.want, parts)
	}
}

// byPart divides an answer by part.
func byPart(a *answer) map[string][]string {
	parts := map[string][]string{}
	texts := a.texts()
	for i, series := range a.series {
		part := seriesLabels(series).Get(partLabel)
		parts[part] = append(parts[part], texts[i])
	}
	return parts
}

// run runs all requests and disturbances for the duration of the test.
func (s *stress) run(d time.Duration) {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		// A slow machine gets more time, until the minimum has happened.
		for wait(ctx, d) && !s.Failed() &&
			(s.asked.Load() < stressRequests || s.moved.Load() < stressMoves ||
				s.replaced.Load() < 2*stressMoves) {
			d = 100 * time.Millisecond
		}
	})
	actor := func(seed uint64, every time.Duration, do func(r *rand.Rand)) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 5))
			for wait(ctx, every/2+time.Duration(r.Int64N(int64(every)))) {
				do(r)
			}
		})
	}
	for w := range stressWorkers {
		r := rand.New(rand.NewPCG(uint64(w), 6))
		wg.Go(func() {
			for ctx.Err() == nil && !s.Failed() {
				s.ask(w, r)
			}
		})
	}
	actor(1, 20*time.Millisecond, func(*rand.Rand) { s.sync() })
	var moving sync.Mutex // one block at a time, because the bucket is read and then changed
	actor(2, 30*time.Millisecond, func(r *rand.Rand) {
		moving.Lock()
		defer moving.Unlock()
		s.replace(firstReplaced+r.IntN(firstMoving-firstReplaced), r)
	})
	actor(3, 20*time.Millisecond, func(r *rand.Rand) {
		part := firstMoving + r.IntN(stressParts-firstMoving)
		moving.Lock()
		defer moving.Unlock()
		s.leaveAndReturn(ctx, part, r)
	})
	actor(4, 10*time.Millisecond, func(r *rand.Rand) {
		blocks := s.g.Catalog.View().Blocks
		s.g.Headers.Forget(blocks[r.IntN(len(blocks))].ID)
	})
	actor(5, 50*time.Millisecond, func(r *rand.Rand) {
		s.sick.Store(r.IntN(3) == 0)
		s.hangs.Store(r.IntN(4) == 0)
		s.remote.Change(func(values map[bytecache.ID][]byte) {
			for id := range values {
				if r.IntN(2) == 0 {
					delete(values, id)
				}
			}
		})
	})
	actor(6, 20*time.Millisecond, func(r *rand.Rand) {
		rule := relabel.DefaultRelabelConfig
		rule.Action, rule.SourceLabels = relabel.Drop, model.LabelNames{"cluster"}
		rule.Regex = relabel.MustNewRegexp(fmt.Sprintf("none-%d", r.IntN(100)))
		rule.NameValidationScheme = model.UTF8Validation
		if err := s.g.Catalog.Reselect([]*relabel.Config{&rule}); err != nil {
			s.Error(err)
		}
	})
	actor(7, 10*time.Millisecond, func(r *rand.Rand) {
		blocks := s.g.Catalog.View().Blocks
		q := s.questions[r.IntN(len(s.questions))]
		// Warming fails for a deleted block, and yields to requests. Its effect shows in the
		// answers.
		_, _ = s.g.Server.Warm(ctx, blocks[r.IntN(len(blocks))], q.Matchers[:1],
			q.WithoutReplicaLabels, &pagecache.Account{})
	})
	actor(8, 30*time.Millisecond, func(r *rand.Rand) {
		limits := map[string]admission.LimitOptions{}
		for i := range stressTenants {
			limits[stressTenant(i)] = admission.LimitOptions{
				MaxConcurrent: r.IntN(3),
				Weight:        float64(1 + r.IntN(3)),
			}
		}
		s.g.Server.SetLimits(admission.LimitOptions{}, limits)
	})
	wg.Wait()
	s.Logf(
		"%d requests, %d aborted by a replacement, %d given up; %d views; blocks left and came back %d times and were replaced %d times",
		s.asked.Load(), s.aborted.Load(), s.cancelled.Load(), s.views.Load(), s.moved.Load(),
		s.replaced.Load()/2,
	)
}

func stressTenant(i int) string { return fmt.Sprintf("tenant-%d", i) }

// wait waits for d. It returns false if ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// listedAtOnce makes the listing of a folder atomic. A plain listing reads a folder and its
// subfolders one after the other. If a block is replaced meanwhile, it could have neither of the
// two blocks.
type listedAtOnce struct {
	objstore.Bucket
	moment *sync.RWMutex
}

func (b listedAtOnce) Iter(
	ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption,
) error {
	b.moment.RLock()
	defer b.moment.RUnlock()
	return b.Bucket.Iter(ctx, dir, f, o...)
}

func (b listedAtOnce) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption,
) error {
	b.moment.RLock()
	defer b.moment.RUnlock()
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

func (s *stress) sync() {
	if err := s.g.Catalog.Sync(s.Context()); err != nil && !errors.Is(err, catalog.ErrIncomplete) {
		s.Errorf("sync: %v", err)
	}
}

// partBlock returns the ULID of a part's block in the bucket.
func (s *stress) partBlock(part int) ulid.ULID {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range entries {
		m, err := dataset.ReadMeta(filepath.Join(s.dir, e.Name()))
		if err == nil && m.Thanos.Labels[partLabel] == fmt.Sprintf("p%d", part) {
			return m.ULID
		}
	}
	s.Fatalf("part %d is not in the bucket", part)
	return ulid.ULID{}
}

// replace replaces a block by one of the same content, like a compaction.
func (s *stress) replace(part int, r *rand.Rand) {
	s.replaced.Add(1)
	old := s.partBlock(part)
	id := old
	for i := 6; i < len(id); i++ {
		id[i] = byte(r.Uint32())
	}
	from, to := filepath.Join(s.dir, old.String()), filepath.Join(s.dir, id.String())
	must := func(err error) {
		s.Helper()
		if err != nil {
			s.Errorf("replace: %v", err)
		}
	}
	s.moment.Lock()
	must(os.MkdirAll(filepath.Join(to, "chunks"), 0o777))
	must(filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "meta.json" {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return os.Link(path, filepath.Join(to, rel))
	}))
	meta, err := os.ReadFile(filepath.Join(from, "meta.json"))
	must(err)
	// Its sources stay the same, because it has all series of the old block.
	meta = bytes.Replace(meta, []byte(`"ulid": "`+old.String()), []byte(`"ulid": "`+id.String()), 1)
	must(os.WriteFile(filepath.Join(s.away, "meta.json"), meta, 0o600))
	must(os.Rename(filepath.Join(s.away, "meta.json"), filepath.Join(to, "meta.json")))
	s.moment.Unlock()
	if r.IntN(2) == 0 {
		s.sync()
	}
	s.moment.Lock()
	must(os.Remove(filepath.Join(from, "meta.json")))
	must(os.RemoveAll(from))
	s.moment.Unlock()
	s.sync()
	s.replaced.Add(1)
}

// leaveAndReturn marks a block for deletion, deletes it, and restores it later.
func (s *stress) leaveAndReturn(ctx context.Context, part int, r *rand.Rand) {
	id := s.partBlock(part)
	folder, away := filepath.Join(s.dir, id.String()), filepath.Join(s.away, id.String())
	mark := filepath.Join(folder, deletionMark)
	text := fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, id, markedLongAgo)
	if err := os.WriteFile(mark, []byte(text), 0o600); err != nil {
		s.Error(err)
	}
	for s.g.Catalog.View().ByID(id) != nil {
		s.sync()
	}
	// Wait for the requests that may still read it, like the deletion delay of a compactor.
	now := s.clock.Add(1)
	for w := range s.running {
		for began := s.running[w].Load(); began != 0 && began < now; began = s.running[w].Load() {
			runtime.Gosched()
		}
	}
	if err := os.Rename(folder, away); err != nil {
		s.Error(err)
	}
	for range r.IntN(5) { // its number is retired after three views
		s.sync()
	}
	wait(ctx, time.Duration(r.Int64N(int64(20*time.Millisecond))))
	if err := errors.Join(os.Remove(filepath.Join(away, deletionMark)),
		os.Rename(away, folder)); err != nil {
		s.Error(err)
	}
	s.sync()
	s.moved.Add(1)
}

// ask sends one question and checks the answer.
func (s *stress) ask(worker int, r *rand.Rand) {
	ctx := metadata.AppendToOutgoingContext(s.Context(), "thanos-tenant",
		stressTenant(r.IntN(stressTenants)))
	givesUp := r.IntN(8) == 0
	if givesUp {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.Int64N(int64(5*time.Millisecond))))
		defer cancel()
	}
	s.running[worker].Store(s.clock.Add(1))
	replacing, before := s.replaced.Load(), s.g.Catalog.View()
	i := r.IntN(len(s.questions))
	got, err := s.question(ctx, r, i)
	after := s.g.Catalog.View()
	undisturbed := replacing%2 == 0 && s.replaced.Load() == replacing
	s.running[worker].Store(0)
	s.asked.Add(1)
	switch code := status.Code(err); {
	case err == nil:
		s.judge(i, got, before, after)
	case givesUp && (code == codes.Canceled || code == codes.DeadlineExceeded):
		s.cancelled.Add(1)
	case !undisturbed && (code == codes.Aborted || code == codes.Internal):
		s.aborted.Add(1)
	default:
		s.Errorf("question %d: %v", i, err)
	}
}

// question sends a question as a Series request, or as a label request.
func (s *stress) question(
	ctx context.Context, r *rand.Rand, i int,
) (parts map[string][]string, err error) {
	q := s.questions[i]
	switch r.IntN(6) {
	case 0:
		resp, err := s.g.client.LabelValues(ctx, &storepb.LabelValuesRequest{
			Label:    partLabel,
			Start:    q.MinTime,
			End:      q.MaxTime,
			Matchers: q.Matchers,
		})
		if err != nil {
			return nil, err
		}
		parts = map[string][]string{}
		for _, p := range resp.Values {
			parts[p] = nil
		}
		return parts, nil
	case 1:
		resp, err := s.g.client.LabelNames(ctx,
			&storepb.LabelNamesRequest{Start: q.MinTime, End: q.MaxTime, Matchers: q.Matchers})
		if err == nil &&
			(!slices.Contains(resp.Names, partLabel) || !slices.Contains(resp.Names, "pod")) {
			s.Errorf("question %d: label names %q", i, resp.Names)
		}
		return nil, err
	case 2:
		_, err := s.g.info.Info(ctx, &storepb.InfoRequest{})
		return nil, err
	}
	a, err := s.g.query(ctx, q)
	if err != nil {
		return nil, err
	}
	return byPart(a), nil
}

// judge compares an answer with the views before and after it. A nil answer does not tell parts
// apart.
func (s *stress) judge(i int, got map[string][]string, before, after *catalog.View) {
	if got == nil {
		return
	}
	want := s.want[i]
	for part := range got {
		if want[part] == nil {
			s.Errorf("question %d: the answer has the unknown part %s", i, part)
		}
	}
	for part, series := range want {
		have, ok := got[part]
		switch {
		case ok && have != nil && !slices.Equal(have, series):
			s.Errorf("question %d: part %s (-want +got):\n%s", i, part, gocmp.Diff(series, have))
		case !ok && part < fmt.Sprintf("p%d", firstMoving):
			s.Errorf("question %d: part %s is missing", i, part)
		case !ok && before == after && inView(before, part):
			s.Errorf("question %d: part %s is missing although it was present all the time", i, part)
		case ok && before == after && !inView(before, part):
			s.Errorf("question %d: the answer has part %s, which was absent all the time", i, part)
		}
	}
}

func inView(v *catalog.View, part string) bool {
	return slices.ContainsFunc(v.Blocks,
		func(b *catalog.Block) bool { return b.Labels.Get(partLabel) == part })
}

// settle checks what is left after the last request.
func (s *stress) settle() {
	s.hangs.Store(false)
	s.sync()
	for s.g.inUse(s.T) > 0 || s.g.Sets.ReservedBytes() > 0 ||
		s.g.metric(s.T, "thanos_bucket_store_series_gate_queries_in_flight") > 0 {
		// Handlers end a little after clients that cancelled, and then release their bytes.
		runtime.Gosched()
	}
	view := s.g.Catalog.View()
	if len(view.Blocks) != stressParts {
		s.Errorf("%d blocks in the end", len(view.Blocks))
	}
	for i := range s.questions {
		got, err := s.g.query(s.Context(), s.questions[i])
		if err != nil {
			s.Errorf("in the end: %v", err)
			continue
		}
		s.judge(i, byPart(got), view, view)
	}
	// A late request may have rebuilt the header of a former block. The next change of the view
	// removes it.
	s.g.Headers.Keep(func(id ulid.ULID) bool { return view.ByID(id) != nil })
	entries, err := os.ReadDir(s.headers)
	if err != nil {
		s.Error(err)
	}
	for _, e := range entries {
		if id, err := ulid.ParseStrict(strings.TrimSuffix(e.Name(), ".header")); err != nil ||
			view.ByID(id) == nil {
			s.Errorf("the header file %s is of no block that is served", e.Name())
		}
	}
	// Idle headers are closed.
	for len(openFiles(s.T, ulid.ULID{})) > 0 && s.Context().Err() == nil {
		runtime.Gosched()
	}
}
