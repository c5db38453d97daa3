package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"larder/interop/internal/allowed"
	"larder/interop/internal/answer"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/settings"
	"larder/interop/internal/trial"
)

// The sizes of a run. A full run has at least fullLayouts layouts, and must have needed every
// allowed difference.
const (
	shortLayouts  = 12
	fullLayouts   = 40
	perLayout     = 170
	fullPerLayout = 260
	maxReports    = 3
	defaultSeed   = 1
	featureShare  = 0.10
	// irregularShare is the least share of Series requests that must read each irregularity.
	irregularShare = 0.03
	nonEmptyShare  = 0.60
)

// coverage counts what a run has covered.
type coverage struct {
	mu       sync.Mutex
	requests map[string]int
	nonEmpty map[string]int
	refused  int
	features map[string]int
	shapes   map[string]int
	layouts  int
	depth    int
	settled  int // requests that Thanos answered in several ways, see Trial.Settle
}

func newCoverage() *coverage {
	return &coverage{
		requests: map[string]int{},
		nonEmpty: map[string]int{},
		features: map[string]int{},
		shapes:   map[string]int{},
	}
}

func (c *coverage) layout(l *layout.Layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.Shape()
	c.layouts++
	c.depth = max(c.depth, s.Depth)
	for name, has := range map[string]bool{
		"label clash": s.Clash, "blocks without external labels": s.EmptyExternal,
		"replica label inside":  s.ReplicaInside,
		"replica label outside": s.ReplicaOutside, "overlapping blocks": s.Overlapping,
		"nested blocks": s.Nested, "gaps": s.Gapped,
		"touching blocks": s.Touching, "downsampled blocks": s.Downsampled,
		"raw deleted": s.RawDeleted, "compacted sources": s.Covered,
		"marked lately": s.MarkedServed, "marked long ago": s.MarkedGone,
		"prefix chains three deep":           s.Depth >= 3,
		"irregular beside a regular replica": s.OddTwin,
	} {
		if has {
			c.shapes[name]++
		} else {
			c.shapes[name] += 0
		}
	}
	for _, k := range layout.Irregularities {
		c.shapes[string(k)] += 0
		if s.Irregular[k] {
			c.shapes[string(k)]++
		}
	}
}

func (c *coverage) request(l *layout.Layout, q *query.Query, r *trial.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := q.Kind()
	c.requests[k]++
	if !r.Thanos.Empty() {
		c.nonEmpty[k]++
	}
	if q.Bad != "" {
		c.refused++
	}
	if q.Series == nil {
		return
	}
	for _, f := range q.Features(l) {
		c.features[f]++
	}
	if !r.Thanos.Empty() {
		for _, k := range irregularitiesRead(l, q) {
			c.features["reads "+string(k)]++
		}
		aggregates, replicas, repeated := aggregatesOverReplicas(r)
		if repeated {
			c.features["aggregate chunks that Thanos repeats"]++
		}
		if aggregates {
			c.features["aggregate chunks in the answer"]++
		}
		if aggregates && replicas {
			c.features["aggregate chunks of several replicas in one series"]++
		}
	}
}

// irregularitiesRead returns the irregularities of the blocks that a Series request reads.
func irregularitiesRead(l *layout.Layout, q *query.Query) (read []layout.Irregularity) {
	ms, _ := q.Matchers()
	seen := map[layout.Irregularity]bool{}
	for _, b := range l.Choose(q.Series.MinTime, q.Series.MaxTime, q.Series.MaxResolutionWindow,
		ms).Right {
		for _, k := range b.Irregular {
			if !seen[k] {
				seen[k] = true
				read = append(read, k)
			}
		}
	}
	return read
}

// aggregatesOverReplicas reports whether the answer has aggregates, whether a series has those of
// several blocks for one time, and whether some are repeated.
func aggregatesOverReplicas(r *trial.Result) (aggregates, replicas, repeated bool) {
	for _, s := range r.Thanos.Series {
		for i, c := range s.Chunks {
			for _, p := range c.Parts[1:] {
				if p == nil {
					continue
				}
				aggregates = true
				if i > 0 && s.Chunks[i-1].MinTime == c.MinTime {
					replicas = true
					repeated = repeated || s.Chunks[i-1].Equal(c)
				}
			}
		}
	}
	return aggregates, replicas, repeated
}

// all is the number of requests.
func (c *coverage) all() int {
	n := 0
	for _, k := range c.requests {
		n += k
	}
	return n
}

// check fails the test if the run did not cover what it must.
func (c *coverage) check(t *testing.T) {
	t.Helper()
	series := c.requests["Series"]
	t.Logf(
		"%d layouts, requests %v, not empty %v, meant to be rejected or empty %d, deepest prefix chain %d",
		c.layouts, c.requests, c.nonEmpty, c.refused, c.depth,
	)
	if most := c.all() / 500; c.settled > most {
		t.Errorf(
			"Thanos has several answers to %d requests, more than %d: the comparison is too lax",
			c.settled, most,
		)
	}
	t.Logf("features of %d Series requests: %v", series, c.features)
	t.Logf("shapes of %d layouts: %v", c.layouts, c.shapes)
	for _, k := range []string{"Series", "LabelNames", "LabelValues", "Info"} {
		if c.requests[k] == 0 {
			t.Errorf("no %s request was made", k)
		}
	}
	if share := float64(c.nonEmpty["Series"]) / float64(series); share < nonEmptyShare {
		t.Errorf(
			"%.0f %% of the Series answers hold something, want at least %.0f %%", share*100,
			nonEmptyShare*100,
		)
	}
	for _, f := range query.SeriesFeatures {
		if share := float64(c.features[f]) / float64(series); share < featureShare {
			t.Errorf(
				"%q is in %.1f %% of the Series requests, want at least %.0f %%", f, share*100,
				featureShare*100,
			)
		}
	}
	for _, f := range []string{"aggregate chunks in the answer",
		"aggregate chunks of several replicas in one series",
		"aggregate chunks that Thanos repeats"} {
		if c.features[f] == 0 {
			t.Errorf("no answer with: %s", f)
		}
	}
	for _, k := range layout.Irregularities {
		if f := "reads " + string(k); float64(c.features[f]) < irregularShare*float64(series) {
			t.Errorf(
				"%q: %d of %d Series requests with an answer, want at least %.0f %%", f,
				c.features[f], series, irregularShare*100,
			)
		}
	}
	for name, n := range c.shapes {
		if n == 0 {
			t.Errorf("no layout with: %s", name)
		}
	}
}

// kind returns the options of the i-th layout of a run. Few layouts are damaged, because most of
// their answers are errors.
func kind(i int) layout.Options {
	switch i % 12 {
	case 1, 4, 6, 9:
		return layout.Options{Irregular: true}
	case 3:
		return layout.Options{Giants: true}
	case 7:
		return layout.Options{Damage: layout.FlippedChunk}
	case 11:
		return layout.Options{
			Damage: []layout.Damage{layout.MissingChunks, layout.TruncatedChunks}[i/12%2],
		}
	default:
		return layout.Options{}
	}
}

// runs compares a subject with Thanos over n layouts. It calls differ for each request that
// differs, until differ returns stop.
type run struct {
	subject trial.Subject
	// other, unless nil, is the subject of every second layout.
	other trial.Subject
	// again sends the subject a second time everything that Thanos has an answer to.
	again   bool
	allowed *allowed.List
	seed    uint64
	layouts int
	// requests per layout.
	requests int
	kind     func(i int) layout.Options
	coverage *coverage
	// shelf keeps the buckets for other runs of the same seed and kinds. If it is nil, each bucket
	// is removed after its run.
	shelf *shelf
}

// shelf has buckets that several runs read.
type shelf struct {
	dir string
	mu  sync.Mutex // guards made; held while a bucket is written
	// made are the layouts by index.
	made map[int]*layout.Layout
}

func (s *shelf) take(
	ctx context.Context, i int, seed uint64, opts layout.Options,
) (*layout.Layout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.made[i]; l != nil {
		return l, nil
	}
	dir := filepath.Join(s.dir, strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := layout.Write(ctx, dir, seed, opts)
	if err == nil {
		s.made[i] = l
	}
	return l, err
}

func (r *run) all(
	t *testing.T, differ func(tr *trial.Trial, q *query.Query, res *trial.Result) (more bool),
) {
	t.Helper()
	only := settings.Int(t, "INTEROP_ONLY", -1)
	for i := range r.layouts {
		if only >= 0 && only != i {
			continue
		}
		if !r.one(t, i, differ) {
			return
		}
	}
}

func (r *run) one(
	t *testing.T, i int, differ func(tr *trial.Trial, q *query.Query, res *trial.Result) bool,
) (more bool) {
	t.Helper()
	ctx := context.Background()
	seed := r.seed*1000 + uint64(i)
	// Not t.TempDir, because forty buckets at once need too much disk.
	dir, err := os.MkdirTemp("", "interop-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	opts := layout.Options{}
	if r.kind != nil {
		opts = r.kind(i)
	}
	buckets := r.shelf
	if buckets == nil {
		buckets = &shelf{dir: dir, made: map[int]*layout.Layout{}}
	}
	l, err := buckets.take(ctx, i, seed, opts)
	if err != nil {
		t.Fatal(err)
	}
	subject := r.subject
	if r.other != nil && i%2 == 1 {
		subject = r.other
	}
	tr, err := trial.Start(ctx, l, dir, subject, r.allowed)
	if err != nil {
		t.Fatalf("layout %d (seed %d): %v", i, seed, err)
	}
	defer func() {
		if err := tr.Close(); err != nil {
			t.Errorf("layout %d (seed %d): %v", i, seed, err)
			more = false
		}
	}()
	if r.coverage != nil {
		r.coverage.layout(l)
	}
	g := query.NewGenerator(seed, l)
	for n := range r.requests {
		q := g.Next()
		if n == 0 {
			q = &query.Query{Info: true}
		}
		res, err := tr.Ask(ctx, q)
		if err != nil {
			t.Fatalf("layout %d (seed %d), request %d: %s: %v", i, seed, n, q, err)
		}
		if r.coverage != nil {
			r.coverage.request(l, q, res)
			if len(res.Differences) > 0 {
				if res, err = tr.Settle(ctx, q, res); err != nil {
					t.Fatalf(
						"layout %d (seed %d), request %d asked again: %s: %v", i, seed, n, q, err,
					)
				}
				if len(res.Differences) == 0 {
					r.coverage.settled++
				}
			}
		}
		if len(res.Differences) > 0 && !differ(tr, q, res) {
			return false
		}
		if r.again && res.Thanos.Code == codes.OK {
			diff, err := tr.Again(ctx, q, res)
			if err != nil {
				t.Fatalf(
					"layout %d (seed %d), request %d asked a second time: %s: %v", i, seed, n, q,
					err,
				)
			}
			if len(diff) > 0 {
				t.Errorf(
					"layout %d (seed %d), request %d: the second answer to %s differs from the first: %v",
					i, seed, n, q, diff,
				)
				return false
			}
		}
	}
	return true
}

// reporter reports differences, each with the simplest request that shows it. Of every field it
// reports the first few and counts the rest.
func reporter(
	t *testing.T, most int,
) func(tr *trial.Trial, q *query.Query, res *trial.Result) bool {
	seen := map[answer.Field]int{}
	t.Cleanup(func() {
		if len(seen) > 0 {
			t.Logf("requests with differences, by field: %v", seen)
		}
	})
	return func(tr *trial.Trial, q *query.Query, res *trial.Result) bool {
		f := res.Differences[0].Field
		seen[f]++
		switch {
		case seen[f] > 50*most:
			t.Errorf("more than %d differences in %s: stopped", 50*most, f)
			return false
		case seen[f] > most:
			t.Fail()
			return true
		}
		small, r := tr.Shrink(context.Background(), q, res)
		t.Error(
			fmt.Sprintf("difference %d in %s\n", seen[f], f) + trial.Report(tr.Layout, small, r),
		)
		return true
	}
}
