package trips

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/benchmarks/inprocess"
	"larder/benchmarks/objectstore"
	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
	"larder/internal/diskcache"
	"larder/internal/extent"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store/prefetch"
	"larder/store/storepb"
)

var update = flag.Bool("update", false, "write testdata/trips.txt and testdata/scenarios.txt")

const (
	firstByte      = 20 * time.Millisecond
	bytesPerSecond = 80_000_000

	table = "testdata/trips.txt"
	hour  = int64(3_600_000)
	day   = 24 * hour
)

// set is a data set.
type set struct {
	name   string
	layout dataset.Layout
	about  string
}

// sets are those of `make compare`, with fewer blocks or pods. The index of "block" has its full
// size, because the plan of a query depends on how far its series entries are apart.
func sets() []set {
	block := dataset.Medium(1, 1020)
	block.Blocks = block.Blocks[len(block.Blocks)-1:]
	return []set{
		{"block", block, "the last block of medium: 1,020 pods, 100,000 series, 2 hours"},
		{"days", dataset.Medium(1, 102), "medium with 102 pods: 13 blocks of 10,000 series"},
		{"many", dataset.Many(1, 100), "100 blocks of 100 series, 2 hours each"},
	}
}

// question is one row of the table: a Series request, or a request for label values or names.
type question struct {
	name, set string
	matchers  []*storepb.LabelMatcher
	values    string // the label whose values are asked for
	names     bool   // label names are asked for
}

func questions() []question {
	ms := func(ms ...*storepb.LabelMatcher) []*storepb.LabelMatcher { return ms }
	eq := func(name, value string) *storepb.LabelMatcher {
		return &storepb.LabelMatcher{Name: name, Value: value}
	}
	up, metric := eq("__name__", "up"), eq("__name__", dataset.WholeMetricName)
	pod := eq("pod", "pod-7")
	pods := &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "pod-1.*"}
	return []question{
		{name: "Q1", set: "block", matchers: ms(
			metric, pod, eq("handler", "/api/v1/orders"), eq("code", "500"))},
		{name: "Q1b", set: "block", matchers: ms(pod)},
		{name: "Q2", set: "days", matchers: ms(up)},
		{name: "Q3", set: "block", matchers: ms(metric)},
		{name: "Q4", set: "block", matchers: ms(metric, pods)},
		{name: "Q6b", set: "days", matchers: ms(up), values: "pod"},
		{name: "Q7b", set: "days", matchers: ms(metric, pod), names: true},
		{name: "M1", set: "many", matchers: ms(up)},
		{name: "M2", set: "many", matchers: ms(metric)},
	}
}

// TestTrips compares what cold queries ask of the bucket with testdata/trips.txt.
func TestTrips(t *testing.T) {
	var out bytes.Buffer
	out.WriteString("# Cold queries in virtual time: index headers on disk, caches empty, " +
		"20 ms to the first byte,\n# 80 MB/s a read. Rows with +disk: a disk cache has the " +
		"indexes. Written by `make trips`; see\n# doc.go. Sets:\n")
	places := map[string]place{}
	for _, s := range sets() {
		fmt.Fprintf(&out, "#   %-6s %s\n", s.name, s.about)
		places[s.name] = write(t, s.layout)
	}
	out.WriteString("# trips: the longest chain of dependent reads of one block. queued: how much " +
		"longer the longest\n# chain of all reads is. first, whole: until the first message and the " +
		"end, in ms.\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "query\tset\tanswers\ttrips\tqueued\tindex\tbytes\tchunks\tbytes\t"+
		"first\twhole\t")
	for i := range 2 * len(questions()) {
		q := questions()[i%len(questions())]
		var change func(*testing.T, *inprocess.Options)
		if i >= len(questions()) {
			q.name += "+disk"
			change = places[q.set].prefetch
		}
		r := ask(t, places[q.set], &q, change)
		index, chunks := r.volume("/index"), r.volume("/chunks/")
		if n := index.reads + chunks.reads; n != len(r.reads) || r.other > 0 {
			t.Errorf("%s: %d reads of index and chunk files, %d reads in all and %d other calls",
				q.name, n, len(r.reads), r.other)
		}
		trips := objectstore.Trips(r.reads)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n",
			q.name, q.set, r.answers, trips, objectstore.Chain(r.reads)-trips,
			index.reads, index.bytes, chunks.reads, chunks.bytes, ms(r.first), ms(r.whole))
	}
	w.Flush()
	if *update {
		if err := os.WriteFile(table, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n"))
	if diff != "" {
		t.Errorf("the reads of cold queries differ from %s (-file +now).\n"+
			"If that is intended, run `make trips` and commit the table.\n%s", table, diff)
	}
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}

// place is a data set on disk, and a data directory with its index headers.
type place struct {
	bucket, dir string
	from, to    int64
}

func write(t *testing.T, l dataset.Layout) place {
	t.Helper()
	p := place{bucket: t.TempDir(), dir: t.TempDir()}
	if _, err := l.Write(t.Context(), p.bucket, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.from, p.to = l.Blocks[0].MinTime, l.Blocks[0].MaxTime-1
	for _, b := range l.Blocks {
		p.from, p.to = min(p.from, b.MinTime), max(p.to, b.MaxTime-1)
	}
	return p
}

// result is what a question asked of the bucket.
type result struct {
	reads        []objectstore.Read
	other        int64 // calls that are not ranged reads
	answers      int   // series, values or names
	first, whole time.Duration
}

type volume struct {
	reads int
	bytes int64
}

// volume counts the reads of objects whose name contains part.
func (r *result) volume(part string) (v volume) {
	for _, rd := range r.reads {
		if strings.Contains(rd.Name, part) {
			v.reads++
			v.bytes += rd.Bytes
		}
	}
	return v
}

// prefetch gives a gateway a disk cache, which survives it, and prefetch of indexes.
func (p place) prefetch(t *testing.T, o *inprocess.Options) {
	disk := diskcache.OpenDisk(diskcache.DiskOptions{
		Dir: localfs.At(p.dir, "disk"), Timeout: time.Hour,
	})
	t.Cleanup(disk.Close)
	o.Index.Disk = func(pageBytes int64) bytecache.Disk {
		return disk.Open(diskcache.Options{
			Kind: "index", MaxBytes: 1 << 30, PageBytes: pageBytes,
		})
	}
	o.Prefetch = func(o *prefetch.Options) { o.MaxBytes = 1 << 30 }
	o.Registerer = prometheus.NewRegistry()
}

// prefetched waits until all indexes are on the disk.
func prefetched(t *testing.T, o *inprocess.Options) {
	t.Helper()
	for range 10_000 {
		synctest.Wait()
		families, err := o.Registerer.(*prometheus.Registry).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "larder_index_prefetch_pending_blocks" &&
				f.GetMetric()[0].GetGauge().GetValue() == 0 {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("indexes are not prefetched")
}

// ask asks a new gateway. change may change its options.
func ask(
	t *testing.T, p place, q *question, change func(*testing.T, *inprocess.Options),
) (r result) {
	t.Helper()
	withGateway(t, p, change, func(
		t *testing.T, g *inprocess.Gateway, b *objectstore.Bucket,
	) {
		b.Record(true)
		before := b.Counts()
		var err error
		if r, err = q.ask(t.Context(), g, p); err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		synctest.Wait()
		c := b.Counts().Minus(before)
		r.reads, r.other = b.Reads(), c.Lists+c.Others
	})
	return r
}

// withGateway calls f in virtual time with a new gateway, whose index headers are open and whose
// caches are empty. f gets the test of the virtual time, whose context it must use. change may
// change the options of the gateway.
func withGateway(
	t *testing.T, p place, change func(*testing.T, *inprocess.Options),
	f func(*testing.T, *inprocess.Gateway, *objectstore.Bucket),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fs, err := filesystem.NewBucket(p.bucket)
		if err != nil {
			t.Fatal(err)
		}
		b := objectstore.Wrap(extent.Stating(fs), objectstore.Model{})
		// What is measured depends on the order of reads that end at the same time.
		pages := pagecache.Options{
			Limiter: slots.New(slots.Options{}), Costs: cost.Fixed(cost.Model{}),
		}
		opts := inprocess.Options{
			Bucket: b, Dir: p.dir,
			Index: indexcache.Options{Pages: pages}, Chunks: chunkcache.Options{Pages: pages},
		}
		if change != nil {
			change(t, &opts)
		}
		g, err := inprocess.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := g.Catalog.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Builds or opens all index headers, and reads no index.
		absent := question{matchers: []*storepb.LabelMatcher{{Name: "__name__", Value: "absent"}}}
		if got, err := absent.ask(t.Context(), g, p); err != nil || got.answers > 0 {
			t.Fatalf("%d series, %v", got.answers, err)
		}
		if opts.Prefetch != nil {
			prefetched(t, &opts)
		}
		b.SetModel(objectstore.Model{FirstByte: firstByte, BytesPerSecond: bytesPerSecond})
		f(t, g, b)
	})
}

func (q *question) ask(ctx context.Context, g *inprocess.Gateway, p place) (r result, err error) {
	began := time.Now()
	defer func() {
		r.whole = time.Since(began)
		if r.first == 0 {
			r.first = r.whole
		}
	}()
	switch {
	case q.values != "":
		v, err := g.Server.LabelValues(ctx, &storepb.LabelValuesRequest{
			Label: q.values, Start: p.from, End: p.to, Matchers: q.matchers,
		})
		r.answers = len(v.GetValues())
		return r, err
	case q.names:
		v, err := g.Server.LabelNames(ctx, &storepb.LabelNamesRequest{
			Start: p.from, End: p.to, Matchers: q.matchers,
		})
		r.answers = len(v.GetNames())
		return r, err
	}
	s := &sink{ctx: ctx, began: began}
	err = g.Server.Series(&storepb.SeriesRequest{
		MinTime: p.from, MaxTime: p.to, Matchers: q.matchers, ResponseBatchSize: 64,
	}, s)
	r.answers, r.first = s.series, s.first
	return r, err
}

// sink is the client's end of a Series call. It reads at once.
type sink struct {
	grpc.ServerStream
	ctx    context.Context
	began  time.Time
	series int
	first  time.Duration // until the first message
	last   string        // labels of the last series, which may go on in another message
}

func (s *sink) Context() context.Context { return s.ctx }

func (s *sink) Send(*storepb.SeriesResponse) error { panic("frames only") }

func (s *sink) SendMsg(m any) error {
	if s.first == 0 {
		s.first = time.Since(s.began)
	}
	var resp storepb.SeriesResponse
	if err := proto.Unmarshal(m.(*storepb.Frame).Bytes(), &resp); err != nil {
		return err
	}
	for _, series := range append(resp.GetBatch().GetSeries(), resp.GetSeries()) {
		if series == nil {
			continue
		}
		var text strings.Builder
		for _, l := range series.Labels {
			text.WriteString(l.Name + "\xff" + l.Value + "\xff")
		}
		if text.String() != s.last {
			s.series++
		}
		s.last = text.String()
	}
	return nil
}
