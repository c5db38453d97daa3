package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/benchmarks/rawindex"
	"larder/internal/browser"
	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
	"larder/internal/loopback"
	"larder/store/storepb"
)

// picturesVariable names a folder for pictures of all pages.
const picturesVariable = "LARDER_PICTURES"

// pageTest looks at pages in one Chromium.
type pageTest struct {
	t *testing.T
	*browser.Browser
	status int // of an answer that is an error; 0: none is expected
}

// looks opens a page on a phone and on a wide screen, light and dark. It has no flaws, and shows
// these texts.
func (p *pageTest) looks(name, address string, want ...string) {
	p.t.Helper()
	p.Open(address)
	for _, width := range []int64{360, 1600} {
		for _, scheme := range []string{"light", "dark"} {
			p.Show(width, scheme)
			view := fmt.Sprintf("%s-%d-%s", name, width, scheme)
			for _, flaw := range p.Flaws() {
				p.t.Errorf("%s: %s", view, flaw)
			}
			if dir := os.Getenv(picturesVariable); dir != "" {
				p.Save(filepath.Join(dir, view+".png"))
			}
		}
	}
	p.shows(name, want...)
	for _, e := range p.Errors() {
		if p.status == 0 || !strings.Contains(e, fmt.Sprint("a status of ", p.status)) {
			p.t.Errorf("%s: %s", name, e)
		}
	}
}

// shows checks that the page has these texts.
func (p *pageTest) shows(name string, want ...string) {
	p.t.Helper()
	text := p.Text()
	for _, w := range want {
		if !strings.Contains(text, w) {
			p.t.Errorf("%s lacks %q", name, w)
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s shows:\n%s", name, text)
	}
}

// siteOfIncident is a bucket with a block for each reason for which blocks are not served.
type siteOfIncident struct {
	*incident
	good, damaged, broken ulid.ULID
	absent                []ulid.ULID // why they are absent: see newSiteOfIncident
}

func newSiteOfIncident(t *testing.T) *siteOfIncident {
	t.Helper()
	s := &siteOfIncident{incident: &incident{
		scrapes: &scrapes{t: t}, bucket: t.TempDir(), faults: faultstore.New(1),
	}}
	whole := func(from, to int64, change func(b *dataset.Block)) ulid.ULID {
		l := dataset.WholeMetric("block", uint64(from), 200, 600_000)
		b := &l.Blocks[0]
		b.MinTime, b.MaxTime = dataset.Epoch+from*hour, dataset.Epoch+to*hour
		b.ID = ulid.MustNew(uint64(b.MaxTime)+uint64(b.Level), strings.NewReader("0123456789"))
		if change != nil {
			change(b)
		}
		if _, err := l.Write(t.Context(), s.bucket, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		return b.ID
	}
	replaced := whole(2, 4, nil)
	whole(2, 4, func(b *dataset.Block) {
		b.ID[15], b.Level, b.Sources = 1, 2, []ulid.ULID{replaced}
	})
	s.damaged = whole(6, 8, func(b *dataset.Block) { b.Interval = 30_000 })
	s.broken = ulid.MustParse("01JZZZZZZZZZZZZZZZZZZZZZZY")
	torn := ulid.MustParse("01JZZZZZZZZZZZZZZZZZZZZZZZ")
	marked := whole(8, 10, nil)
	s.absent = []ulid.ULID{
		s.broken, torn, replaced, marked,
		whole(10, 12, func(b *dataset.Block) { b.Labels = labels.FromStrings("cluster", "us-1") }),
		whole(1000, 1002, nil), // after --max-time
		whole(12, 14, nil),     // uploaded now
	}
	fresh := filepath.Join(s.bucket, s.absent[len(s.absent)-1].String(), "meta.json")
	text, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`("upload_time": *")[^"]+`).
		ReplaceAll(text, []byte("${1}"+time.Now().UTC().Format(time.RFC3339)))
	replace(t, fresh, text)
	s.good = whole(0, 2, func(b *dataset.Block) { b.Interval = 5_000 }) // more than a window
	for path, text := range map[string]string{
		s.broken.String() + "/meta.json": "{",
		torn.String() + "/index":         "half",
		marked.String() + "/deletion-mark.json": fmt.Sprintf(
			`{"version": 1, "id": %q, "deletion_time": %d}`, marked, time.Now().Unix()-1000),
	} {
		path = filepath.Join(s.bucket, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(s.bucket, s.damaged.String(), "chunks/000001"),
		os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 4096), 16<<10)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s.s3, err = s3server.Start(s3server.Options{Dir: s.bucket, Faults: s.faults})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.s3.Close() }) // not what is tested
	return s
}

// askAs sends a request of a tenant for some hours.
func (s *siteOfIncident) askAs(ctx context.Context, tenant string, from, to int64) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "THANOS-TENANT", tenant)
	return s.askRange(ctx, dataset.Epoch+from*hour, dataset.Epoch+to*hour-1)
}

// TestPages looks at every page of real processes in Chromium.
func TestPages(t *testing.T) {
	b := browser.Start(t)
	t.Run("during an incident", func(t *testing.T) {
		pagesDuringAnIncident(&pageTest{t: t, Browser: b})
	})
	t.Run("before the bucket is read", func(t *testing.T) {
		p, s := &pageTest{t: t, Browser: b}, newSiteOfIncident(t)
		s.faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied})
		s.start()
		s.p.await("sync failed")
		p.looks("unready-overview", s.p.url+"/", "not ready",
			"Not ready: the bucket could not be read yet.",
			"The last sync of blocks failed: list blocks", "Access Denied")
		p.looks("unready-blocks", s.p.url+"/blocks", "0 blocks are served", "Access Denied")
	})
	t.Run("reads hang", func(t *testing.T) {
		p, i := &pageTest{t: t, Browser: b}, newIncident(t)
		i.start()
		i.p.await("readiness changed.*ready=true")
		i.stalled(2)
		i.exposes(`thanos_bucket_store_series_gate_queries_in_flight 2`)
		i.exposes(`larder_bucket_slots\{state="used"\} [1-9].*`)
		slots := func() string {
			of := func(state string) float64 {
				return i.p.counted("larder_bucket_slots", "state="+state)
			}
			return fmt.Sprintf("%v of %v reads run, %v wait", of("used"), of("limit"),
				of("waiting"))
		}
		want := slots()
		p.Open(i.p.url + "/")
		// Syncs read beside the requests, so that the figure may change under the page.
		for n := 0; n < 20 && !strings.Contains(p.Text(), want); n++ {
			want = slots()
			p.Open(i.p.url + "/")
		}
		p.shows("the overview", "2 requests now", "0 of them wait", want,
			fmt.Sprintf("%v blocks served", i.p.counted("thanos_bucket_store_blocks_loaded")))
	})
	t.Run("of a shard", func(t *testing.T) {
		pagesOfAShard(&pageTest{t: t, Browser: b})
	})
	t.Run("shards do not agree", func(t *testing.T) {
		pagesOfShards(&pageTest{t: t, Browser: b})
	})
	t.Run("many blocks", func(t *testing.T) {
		pagesOfManyBlocks(&pageTest{t: t, Browser: b})
	})
}

// pagesDuringAnIncident makes an incident: the bucket throttles, a block is damaged, others are not
// served for each reason, the queue of requests is full.
func pagesDuringAnIncident(p *pageTest) {
	t, s := p.t, newSiteOfIncident(p.t)
	limits := write(t, "limits.yml", "tenants: {reports: {request_series: 10}}")
	budgets := write(t, "budgets.yml", "requests: {series: {total: 1us}}")
	s.start("--store.grpc.series-max-concurrency=1", "--store.grpc.series-max-waiting=2",
		"--store.grpc.send-stall-timeout=0", "--store.request-bytes=100MB",
		"--store.limits.config-file="+limits, "--latency-budgets-file="+budgets,
		"--consistency-delay=1h", "--ignore-deletion-marks-delay=0s",
		"--max-time=2026-02-01T00:00:00Z", "--selector.relabel-config="+
			"[{action: drop, source_labels: [cluster], regex: us-.*}]")
	memory := s.p.await("msg=memory")
	s.p.await("readiness changed.*ready=true")

	s.faults.Set(faultstore.Rule{Kind: faultstore.SlowDown, Ops: gets, Count: 3})
	if err := s.askAs(t.Context(), "kitchen", 0, 2); err != nil {
		t.Fatal(err)
	}
	s.faults.Heal()
	if err := s.askAs(t.Context(), "kitchen", 6, 8); status.Code(err) != codes.Aborted {
		t.Fatalf("a request to a damaged block: %v", err)
	}
	if err := s.askAs(t.Context(), "reports", 0, 2); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a request over its limit: %v", err)
	}
	_, err := storepb.NewStoreClient(s.p.rpc).LabelNames(
		metadata.AppendToOutgoingContext(t.Context(), "THANOS-TENANT", "typos"),
		&storepb.LabelNamesRequest{Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "("},
		}})
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("a request with an invalid expression: %v", err)
	}
	// The client of one request does not read its answer, two wait, one is too many.
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	s.unread(ctx, "exports")
	for i, tenant := range []string{"alerts", "dashboards"} {
		all.Go(func() { _ = s.askAs(ctx, tenant, 2, 4) }) // cancelled at the end
		s.exposes(fmt.Sprint("larder_series_gate_waiting ", i+1))
	}
	if err := s.askAs(t.Context(), "late", 0, 2); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a request beyond the queue: %v", err)
	}

	p.looks("overview", s.p.url+"/", "ready",
		"The bucket throttles: it asked for fewer requests 3 times in the last",
		"Block "+s.broken.String()+" is damaged and not served: its meta.json is not valid.",
		"1 block has no meta.json, and is not served: it is being uploaded or deleted.",
		"1 read of damaged data failed", "2 requests wait for a turn, the oldest for",
		"1 request was rejected", "3 requests failed in the last 5 min",
		"1 request was invalid or cancelled in the last 5 min",
		"latency budgets", "Series in total, 4 times", "3 requests now", "2 of them wait",
		"0 failed, 3 throttled", `drop cluster=~"us-.*"`, "until 2026-02-01T00:00:00Z",
	)
	p.rows("#requests", []string{"waiting for the client to read", "exports", `"http_requests`},
		[]string{"waiting for its turn", "alerts", "2026-01-05 02:00 to 03:59"},
		[]string{"waiting for its turn", "dashboards"})
	p.rows("#failures", []string{"all 1 places for Series requests are taken and 2 requests wait",
		"ResourceExhausted", "late"},
		[]string{"missing closing )", "InvalidArgument", "typos", "LabelNames"},
		[]string{"exceeded series limit: limit 10 violated", "reports"},
		[]string{s.damaged.String() + "/chunks/000001", "checksum mismatch", "Aborted", "kitchen"})
	p.memory(memory)

	notServed := []string{
		"7 blocks are not served", "damaged: its meta.json is not valid",
		"no meta.json: being uploaded or deleted", "dropped by --selector.relabel-config",
		"outside of --min-time and --max-time", "newer than --consistency-delay",
		"marked for deletion", "replaced by a compacted block",
	}
	for _, id := range s.absent {
		notServed = append(notServed, id.String())
	}
	p.looks("blocks", s.p.url+"/blocks", append(notServed, s.good.String(), s.damaged.String(),
		"3 blocks are served", "Gaps (1)", "2026-01-05 04:00 to 06:00")...)
	p.looks("search", s.p.url+"/blocks?q="+s.damaged.String()[:12], "1 of them match",
		s.damaged.String())

	p.looks("explain", s.p.url+"/debug/explain", "Explain a request", "Forecast")
	query := url.Values{"match[]": {`http_requests_total{code="500"}`},
		"start": {"2026-01-05T00:00:00Z"}, "end": {"2026-01-05T12:00:00Z"}}
	explain := func() string { return s.p.url + "/debug/explain?" + query.Encode() }
	p.looks("forecast", explain(), "What the request would read", "waits for the bucket",
		s.damaged.String(), s.good.String(), "Postings", "Chunks")
	cancel()
	all.Wait()
	query.Set("run", "1")
	query.Set("tenant", "reports")
	p.status = 429
	p.looks("refused", explain(), "Refused or failed", "exceeded series limit")
	p.status = 0
	query.Set("tenant", "kitchen")
	query.Set("end", "2026-01-05T04:00:00Z")
	p.looks("run", explain(), "What the request read", "until the first series", "tenant kitchen")
}

// pagesOfAShard looks at a member of two shards. Its bucket has blocks that are not served for the
// reasons that the incident lacks, and an irregular block.
func pagesOfAShard(p *pageTest) {
	t, faults := p.t, faultstore.New(1)
	bucket, parquet := t.TempDir(), t.TempDir()
	var ids []ulid.ULID
	for i := range int64(12) {
		l := dataset.WholeMetric("block", uint64(i), 200, 600_000)
		b := &l.Blocks[0]
		b.MinTime, b.MaxTime = dataset.Epoch+2*i*hour, dataset.Epoch+2*(i+1)*hour
		b.ID = ulid.MustNew(uint64(b.MaxTime), strings.NewReader("0123456789"))
		if _, err := l.Write(t.Context(), bucket, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.ID)
	}
	failed, converted := ids[0], ids[1]
	// Which of the two is the reader's shard does not matter for the others.
	for _, id := range ids[2:] {
		irregularIndex(t, filepath.Join(bucket, id.String(), "index"))
	}
	convertedDay(t, parquet, converted)
	// It arrives later, because it would delay the start.
	arrives := filepath.Join(t.TempDir(), failed.String())
	if err := os.Rename(filepath.Join(bucket, failed.String()), arrives); err != nil {
		t.Fatal(err)
	}
	faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied,
		Match: func(_, name string) bool { return name == failed.String()+"/meta.json" }})
	s3, err := s3server.Start(s3server.Options{Dir: bucket, Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() }) // not what is tested
	addresses, err := loopback.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	var members []*process
	for ordinal := range 2 {
		members = append(members, startLarder(t, nil, "store", "--grpc-address=127.0.0.1:0",
			"--http-address="+addresses[ordinal], "--objstore.config="+s3.Config(),
			"--objstore-parquet.config="+folder(parquet), "--data-dir="+t.TempDir(),
			"--shard.count=2", fmt.Sprint("--shard.ordinal=", ordinal),
			"--shard.peers="+addresses[0], "--shard.peers="+addresses[1],
			"--sync-block-duration=100ms",
			"--drain-delay=0s", "--warm.max-time=0s"))
	}
	for _, m := range members {
		m.await("readiness changed.*ready=true")
	}
	stream, err := storepb.NewStoreClient(members[0].rpc).Series(t.Context(),
		&storepb.SeriesRequest{
			MaxTime: 1 << 50, SkipChunks: true,
			Matchers: []*storepb.LabelMatcher{{Name: "job", Value: "shelf"}},
		})
	if err != nil {
		t.Fatal(err)
	}
	countSeries(t, stream)
	if err := os.Rename(arrives, filepath.Join(bucket, failed.String())); err != nil {
		t.Fatal(err)
	}
	members[0].metric(`thanos_blocks_meta_synced{state="failed"} 1`)
	p.looks("shard-overview", members[0].url+"/", "owned by another shard", "converted to Parquet",
		"damaged: its meta.json could not be read",
		"Block "+failed.String()+" is damaged and not served: its meta.json could not be read.")
	p.looks("shard-blocks", members[0].url+"/blocks", "owned by another shard",
		"converted to Parquet", failed.String(), converted.String(),
		"Served, but more slowly", "label names out of order or repeated")
	if text := p.Text(); strings.Contains(text, "Gaps (") {
		t.Errorf("blocks of the other shard are shown as gaps:\n%s", text)
	}
}

// irregularIndex replaces an index by one whose labels are out of order.
func irregularIndex(t *testing.T, name string) {
	t.Helper()
	data, err := rawindex.Encode([]rawindex.Series{{
		Labels: []rawindex.Label{
			{Name: "job", Value: "shelf"}, {Name: "__name__", Value: "jars"},
		},
		Chunks: []rawindex.Chunk{{Ref: 8, MinTime: 0, MaxTime: 1 << 50}},
	}})
	if err == nil {
		err = os.WriteFile(name, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pagesOfShards starts a shard without its peers, one that is the same member, and makes their
// configuration invalid.
func pagesOfShards(p *pageTest) {
	t := p.t
	addresses, err := loopback.Reserve(3)
	if err != nil {
		t.Fatal(err)
	}
	bucket := folder(shardBucket(t, 2))
	file := write(t, "shards.yaml", "{epoch: 1, count: 2, zones: [a]}")
	start := func(address string) *process {
		args := []string{"store", "--grpc-address=127.0.0.1:0", "--http-address=" + address,
			"--objstore.config=" + bucket, "--data-dir=" + t.TempDir(),
			"--shard.config-file=" + file, "--shard.zone=a", "--shard.start-wait=1s"}
		for _, a := range addresses {
			args = append(args, "--shard.peers="+a)
		}
		return startLarder(t, []string{ordinalVariable + "=0"}, args...)
	}
	one := &incident{scrapes: &scrapes{t: t}, p: start(addresses[0])}
	one.exposes(`larder_shard_started_alone 1`)
	start(addresses[1])
	one.exposes(`larder_shard_duplicates 1`)
	replace(t, file, []byte("{epoch: 1, count: 3, zones: [a]}"))
	one.exposes(`larder_config_last_reload_successful\{kind="shard"\} 0`)
	one.exposes(`larder_shard_silent_peers 1`)
	p.looks("shards", one.p.url+"/", "The shard started without a record of epochs",
		"Two processes are the same member: a/0",
		"1 address of peers does not answer: ", addresses[2],
		"The configuration “shard” changed and is invalid.",
		"Member\na/0", "epoch 1: 2 shards in a", "Waits for")
}

// unread sends a request whose client does not read the answer.
func (s *siteOfIncident) unread(ctx context.Context, tenant string) {
	s.t.Helper()
	stream, err := storepb.NewStoreClient(s.p.rpc).Series(
		metadata.AppendToOutgoingContext(ctx, "THANOS-TENANT", tenant), &storepb.SeriesRequest{
			MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 2*hour - 1,
			Matchers: []*storepb.LabelMatcher{
				{Name: "__name__", Value: dataset.WholeMetricName},
			},
		})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// rows checks that the table below a heading has rows with these texts, in this order.
func (p *pageTest) rows(heading string, want ...[]string) {
	p.t.Helper()
	rows := browser.Eval[[]string](p.Browser, `[...document.querySelectorAll(
		"section:has(> h2`+heading+`) tbody tr")].map((e) => e.innerText)`)
	if len(rows) != len(want) {
		p.t.Errorf("%s has %d rows, want %d: %q", heading, len(rows), len(want), rows)
		return
	}
	for i, texts := range want {
		for _, text := range texts {
			if !strings.Contains(rows[i], text) {
				p.t.Errorf("row %d of %s lacks %q: %q", i, heading, text, rows[i])
			}
		}
	}
}

// memory checks that the overview has the limits of the line "memory" of the log.
func (p *pageTest) memory(line string) {
	p.t.Helper()
	rows := browser.Eval[[][]string](p.Browser, `[...document.querySelectorAll("tr")].map(
		(e) => [...e.cells].map((c) => c.innerText))`)
	limits := map[string]string{}
	for _, r := range rows {
		if len(r) > 2 {
			name, _, _ := strings.Cut(r[0], "\n")
			limits[name] = r[2]
		}
	}
	found := regexp.MustCompile(`(\w+)=(\d+)([KMG]i)?B`).FindAllStringSubmatch(line, -1)
	if len(found) < 6 {
		p.t.Errorf("%d figures in %s", len(found), line)
	}
	for _, m := range found {
		name, want := strings.ReplaceAll(m[1], "_", " "), m[2]+".0 "+m[3]+"B"
		if m[2] == "0" {
			want = "off"
		}
		if limits[name] != want {
			p.t.Errorf("the limit of %s: the page has %q, the log %q", name, limits[name], want)
		}
	}
}

// pagesOfManyBlocks searches among blocks by ULID, label and time: 10,000 with LARDER_LONG=1, which
// take about a minute of writing, and 400 otherwise.
func pagesOfManyBlocks(p *pageTest) {
	n, want := int64(400), []string{"400 blocks are served", "1 to 100 of 400"}
	if os.Getenv("LARDER_LONG") != "" {
		n, want = 10_000, []string{"10\u202f000 blocks are served", "1 to 100 of 10\u202f000",
			"The 7\u202f000 oldest are not drawn"}
	}
	bucket, ids := manyBlocks(p.t, n)
	l := startProcess(p.t, folder(bucket))
	l.await("readiness changed.*ready=true")
	p.looks("many", l.url+"/blocks", want...)
	search := func(name, value string, want ...string) {
		p.t.Helper()
		p.Open(l.url + "/blocks")
		p.Submit(name, value)
		p.shows("the search", want...)
	}
	search("q", ids[n/3].String(), "1 of them match", ids[n/3].String())
	search("q", "shop=shop-7", fmt.Sprint(n/20, " of them match"), ids[n-20+7].String())
	search("from", at(dataset.Epoch+2*hour*(n-3)), "3 of them match", ids[n-1].String())
}

func at(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// manyBlocks makes a bucket of n blocks, each two hours after the one before, of 20 shops by turns.
// They share their index.
func manyBlocks(t *testing.T, n int64) (dir string, ids []ulid.ULID) {
	t.Helper()
	dir = t.TempDir()
	metas, err := dataset.WholeMetric("tiny", 1, 200, hour).
		Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := metas[0]
	first := filepath.Join(dir, m.ULID.String())
	for i := range n {
		m.MinTime, m.MaxTime = dataset.Epoch+2*hour*i, dataset.Epoch+2*hour*(i+1)
		m.ULID = ulid.MustNew(uint64(m.MaxTime), strings.NewReader("0123456789"))
		m.Compaction.Sources = []ulid.ULID{m.ULID}
		m.Thanos.Labels = map[string]string{"shop": fmt.Sprint("shop-", i%20)}
		text, err := json.Marshal(m)
		to := filepath.Join(dir, m.ULID.String())
		if err := errors.Join(err, os.Mkdir(to, 0o755),
			os.WriteFile(filepath.Join(to, "meta.json"), text, 0o600),
			os.Link(filepath.Join(first, "index"), filepath.Join(to, "index"))); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ULID)
	}
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	return dir, ids
}
