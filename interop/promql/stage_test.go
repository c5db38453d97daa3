package promql

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"larder/interop/internal/fleet"
	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/programs"
	"larder/interop/internal/promgen"
)

// stage has what a test uses: programs, a folder, and the processes that it started.
type stage struct {
	t      *testing.T
	larder string
	thanos string
	dir    string
	n      int
}

func newStage(t *testing.T) *stage {
	t.Helper()
	bin, err := buildLarder()
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t: t, larder: bin, thanos: programs.Thanos(t), dir: t.TempDir()}
}

// Programs are built once for all tests: even if nothing has changed, the go command needs seconds
// to notice.
var (
	buildLarder = sync.OnceValues(
		func() (string, error) { return gateway.BuildLarder(context.Background(), "../..") },
	)
	buildWriters = map[fleet.Version]func() (*fleet.Writer, error){
		fleet.Thanos: sync.OnceValues(
			func() (*fleet.Writer, error) {
				return fleet.Build(context.Background(), fleet.Thanos, "../..")
			},
		),
		fleet.Larder: sync.OnceValues(
			func() (*fleet.Writer, error) {
				return fleet.Build(context.Background(), fleet.Larder, "../..")
			},
		),
	}
)

// folder returns the name of a new folder; the user of the folder creates it.
func (s *stage) folder(name string) string {
	s.n++
	return filepath.Join(s.dir, fmt.Sprintf("%02d-%s", s.n, name))
}

func (s *stage) writer(v fleet.Version) *fleet.Writer {
	s.t.Helper()
	w, err := buildWriters[v]()
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

// heads writes three blocks of a fleet and returns their folder.
func (s *stage) heads(seed uint64) string {
	s.t.Helper()
	dir := s.folder("head")
	if err := s.writer(fleet.Thanos).
		Write(context.Background(), dir, fleet.Samples{Seed: seed, Blocks: 3}); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func (s *stage) openPrometheus(dir string, external map[string]string) *fleet.Prometheus {
	s.t.Helper()
	scratch := s.folder("scratch")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		s.t.Fatal(err)
	}
	p, err := fleet.OpenPrometheus(dir, scratch, external)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return p
}

// process is closed at the end, and must be alive until then.
type process interface {
	Exited() <-chan struct{}
	Log() string
	Close() error
}

func (s *stage) watch(name string, p process) {
	s.t.Cleanup(func() {
		select {
		case <-p.Exited():
			s.t.Errorf("%s ended by itself: %s", name, p.Log())
			return
		default:
		}
		if err := p.Close(); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	})
}

// larderOver serves a bucket with larder and returns the address.
func (s *stage) larderOver(bucket string, extra ...string) string {
	s.t.Helper()
	l, err := gateway.StartLarder(
		context.Background(),
		s.larder,
		gateway.Bucket{Dir: bucket, DataDir: s.folder("larder")},
		extra...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.watch("larder", l)
	return l.Addr
}

// storeOver serves a bucket with `thanos store`.
func (s *stage) storeOver(bucket string, extra ...string) string {
	s.t.Helper()
	c, err := neighbour.StartStore(
		context.Background(),
		s.thanos,
		gateway.Bucket{Dir: bucket, DataDir: s.folder("store")},
		extra...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.watch("thanos store", c)
	return c.Addr
}

// serve is larderOver or storeOver.
type serve func(bucket string, extra ...string) string

func (s *stage) querier(endpoints []string, extra ...string) *neighbour.Component {
	s.t.Helper()
	q, err := neighbour.StartQuerier(context.Background(), s.thanos, endpoints, extra...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.watch("thanos query", q)
	return q
}

// ask sends a query to a server.
func ask(c *neighbour.Client, q promgen.Query, p neighbour.Params) (*neighbour.Result, error) {
	if q.Step == 0 {
		return c.Instant(context.Background(), q.Text, q.Start, p)
	}
	return c.Range(context.Background(), q.Text, q.Start, q.End, q.Step, p)
}

// tally counts comparisons, so that a run without any fails.
type tally struct {
	queries, failed, empty, samples int
}

func (c *tally) add(r *neighbour.Result) {
	c.queries++
	switch {
	case !r.OK():
		c.failed++
	case len(r.Series) == 0:
		c.empty++
	}
	for _, s := range r.Series {
		c.samples += len(s.Points)
	}
}

func (c *tally) String() string {
	return fmt.Sprintf(
		"%d queries (%d with an empty answer, %d that fail), %d samples", c.queries, c.empty,
		c.failed, c.samples,
	)
}

func (c *tally) check(t *testing.T) {
	t.Helper()
	if c.queries == 0 || c.empty*3 > c.queries*2 || c.failed*5 > c.queries {
		t.Errorf("too little was compared: %s", c)
	}
}

// maxReports is the number of differences that a test reports before it stops.
const maxReports = 5
