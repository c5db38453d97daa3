package web

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

	"larder/internal/activity"
)

// Fact is a named property of what the process serves, such as its bucket. It has a value, or
// lines, such as expressions.
type Fact struct {
	Name, Value string
	Lines       []string
}

// overviewPage is the page at /.
type overviewPage struct {
	Wrong      []finding
	Serving    []Fact
	Build      buildInfoJSON
	Started    time.Time
	Platform   string
	Snap       Snapshot
	LabelSets  int
	Min, Max   int64
	Series     uint64
	Size       int64
	Allowances []allowance
	Tiers      []tiers
	Debug      bool // served here

	// Hidden says that the fields that follow are empty, because another site may read the page.
	Hidden       bool
	Running      []activity.Request
	RunningTotal int
	Waiting      int
	Slowest      []waterfall
	Failures     []activity.Ended
	Bucket       bucketState
	Shard        *Shard // nil: blocks are not split, or the shard is starting or stopping
}

// finding is something that is wrong, or that may be. Link leads to more about it; "" is none.
type finding struct {
	Grave      bool
	Text, Link string
}

// bucketState is how the bucket did in the last minutes.
type bucketState struct {
	Over                            time.Duration
	Reads, OtherFailures, Throttles float64
	Mean                            float64 // seconds of an operation
	Running, Waiting, Limit         int64   // reads
}

func (p *pages) serveOverview(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	page := overviewPage{
		Build: buildInfo(), Started: p.Started.UTC(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Snap:     p.Blocks.Snapshot(), Allowances: allowances(p.Gatherer, p.Allowances),
		Tiers: tiersOf(p.Gatherer), Debug: !p.DebugElsewhere,
	}
	if p.Serving != nil {
		page.Serving = p.Serving()
	}
	sets := map[string]struct{}{}
	for i, b := range page.Snap.Blocks {
		sets[string(b.Labels.Bytes(nil))] = struct{}{}
		if i == 0 {
			page.Min, page.Max = b.MinTime, b.MaxTime
		}
		page.Min, page.Max = min(page.Min, b.MinTime), max(page.Max, b.MaxTime)
		page.Series += b.Series
		page.Size += b.Size
	}
	page.LabelSets = len(sets)
	// Unlike blocks, which the API shows to every site, requests tell who asks for what.
	if page.Hidden = !p.hosts().allowed(r.Host); !page.Hidden {
		page.addRequests(p.Activity)
		if p.ShardStatus != nil {
			page.Shard = p.ShardStatus(r.Context())
		}
	}
	grown := p.history.lately(now)
	families, _ := p.Gatherer.Gather() // with an error it still returns what it could gather
	page.Bucket = bucketStateOf(families, &grown)
	for i := range page.Allowances {
		page.Allowances[i].Over = p.history.hitRatios(page.Allowances[i].Name, sparkBars)
	}
	page.Wrong = p.findings(&page, families, &grown, now)
	p.render(w, r, p.overview, "larder", page)
}

func (page *overviewPage) addRequests(log *activity.Log) {
	page.Running, page.RunningTotal = log.Running()
	for _, one := range page.Running {
		if one.Waiting {
			page.Waiting++
		}
	}
	for _, e := range log.Slowest() {
		page.Slowest = append(page.Slowest, newWaterfall(e))
	}
	page.Failures = log.Failures()
}

func bucketStateOf(families []*dto.MetricFamily, grown *rates) bucketState {
	// An operation counts when it has ended, and may have been throttled more than once.
	failures, throttles := grown.values[keyFailures], grown.values[keyThrottles]
	b := bucketState{
		Over: grown.over, Reads: max(grown.values[keyReads], failures), Throttles: throttles,
		OtherFailures: max(failures-throttles, 0),
	}
	if n := grown.values[keyTimed]; n > 0 {
		b.Mean = grown.values[keySeconds] / n
	}
	for _, f := range families {
		if f.GetName() != "larder_bucket_slots" {
			continue
		}
		for _, m := range f.GetMetric() {
			switch v := int64(value(m)); label(m, "state") {
			case "limit":
				b.Limit = v
			case "used":
				b.Running = v
			case "waiting":
				b.Waiting = v
			}
		}
	}
	return b
}

// longWait is the age from which a waiting request is wrong.
const longWait = 5 * time.Second

// findings says what is wrong now, the gravest first.
func (p *pages) findings(
	page *overviewPage, families []*dto.MetricFamily, grown *rates, now time.Time,
) (out []finding) {
	add := func(grave bool, link, format string, args ...any) {
		out = append(out, finding{grave, fmt.Sprintf(format, args...), link})
	}
	p.readinessFindings(&page.Snap, add)
	if page.Shard != nil {
		page.Shard.findings(add)
	}
	partFindings(families, add)
	page.Bucket.findings(add)
	page.blockFindings(grown, add)
	page.requestFindings(grown, now, add)
	slices.SortStableFunc(out, func(a, b finding) int {
		switch {
		case a.Grave == b.Grave:
			return 0
		case a.Grave:
			return -1
		}
		return 1
	})
	return out
}

// addFinding adds a finding. link is relative to the overview.
type addFinding func(grave bool, link, format string, args ...any)

func (p *pages) readinessFindings(snap *Snapshot, add addFinding) {
	held := p.Probe.held.Load()
	switch {
	case p.Probe.Draining():
		add(true, "", "Not ready: the process is stopping.")
	case p.Probe.Ready():
	case held != nil && p.Probe.ready.Load():
		add(true, "", "Not ready: %s.", *held)
	case snap.SyncedAt.IsZero() && len(snap.Blocks) == 0:
		add(true, "", "Not ready: the bucket is being read for the first time.")
	case snap.CompleteAt.IsZero() && len(snap.Blocks) == 0:
		add(true, "", "Not ready: the bucket could not be read yet.")
	default:
		add(true, "", "Not ready: index headers are being loaded, or caches warmed "+
			"(--wait-headers, --warm.wait).")
	}
	if snap.Err != nil {
		add(true, "", "The last sync of blocks failed: %s", firstLine(snap.Err.Error()))
	}
	if snap.FromDisk {
		add(true, "",
			"The bucket has not been read since the start. Blocks are those of the last run.")
	}
}

func (b *bucketState) findings(add addFinding) {
	if b.Throttles > 0 {
		add(true, "", "The bucket throttles: it asked for fewer requests %s in the last %s.",
			plural(int(b.Throttles), "time", "times"), formatAge(b.Over))
	}
	if b.OtherFailures > 0 {
		add(b.OtherFailures > b.Reads/100, "", "%.0f of %s failed in the last %s.",
			b.OtherFailures, plural(int(b.Reads), "operation of the bucket",
				"operations of the bucket"), formatAge(b.Over))
	}
	if b.Waiting > 0 {
		add(false, "", "%s for others to end.",
			plural(int(b.Waiting), "read of the bucket waits", "reads of the bucket wait"))
	}
}

func (page *overviewPage) blockFindings(grown *rates, add addFinding) {
	const absent = "blocks#absent"
	first, all := page.Snap.damaged()
	for _, b := range first {
		add(true, absent, "%s", b.Damage())
	}
	if more := all - len(first); more > 0 {
		add(true, absent, "%s damaged and not served.",
			plural(more, "more block is", "more blocks are"))
	}
	if n := page.Snap.States["no-meta-json"]; n > 0 {
		add(false, absent, "%s no meta.json, and is not served: it is being uploaded or deleted.",
			plural(n, "block has", "blocks have"))
	}
	if n := grown.values[keyCorrupt]; n > 0 {
		add(true, "#failures", "%s of damaged data failed in the last %s. "+
			"The errors of the requests name the blocks.",
			plural(int(n), "read", "reads"), formatAge(grown.over))
	}
}

func (page *overviewPage) requestFindings(grown *rates, now time.Time, add addFinding) {
	oldest := time.Duration(0)
	for _, r := range page.Running {
		if r.Waiting {
			oldest = max(oldest, now.Sub(r.Start))
		}
	}
	if page.Waiting > 0 {
		add(oldest >= longWait, "#requests", "%s for a turn, the oldest for %s.",
			plural(page.Waiting, "request waits", "requests wait"), formatAge(oldest))
	}
	if n := grown.values[keyRefused]; n > 0 {
		add(true, "#failures",
			"%s rejected in the last %s, because the queue was full or memory was in use.",
			plural(int(n), "request was", "requests were"), formatAge(grown.over))
	}
	failed, clients := page.failedLately(now)
	if n := len(failed); n > 0 {
		add(true, "#failures", "%s in the last %s. The last one: %s",
			plural(n, "request failed", "requests failed"), formatAge(lately),
			firstLine(failed[0].Err))
	}
	if n := len(clients); n > 0 {
		add(false, "#failures", "%s invalid or cancelled in the last %s. The last one: %s",
			plural(n, "request was", "requests were"), formatAge(lately),
			firstLine(clients[0].Err))
	}
	for _, a := range page.Allowances {
		if a.Name == "requests" && a.Max > 0 && a.Used > a.Max/10*9 {
			add(false, "", "Requests use %s of %s of their memory.", formatBytes(a.Used),
				formatBytes(a.Max))
		}
	}
	if over := overruns(grown); over != "" {
		add(false, "#slowest",
			"Requests took longer than their latency budgets in the last %s: %s.",
			formatAge(grown.over), over)
	}
}

// overruns lists the latency budgets that were exceeded, the most frequent first; "" is none.
func overruns(grown *rates) string {
	type overrun struct {
		what  string
		times float64
	}
	var all []overrun
	for key, n := range grown.values {
		name, ok := strings.CutPrefix(key, keyOverruns)
		if !ok || n == 0 {
			continue
		}
		method, stage, _ := strings.Cut(name, "\x00")
		all = append(all, overrun{method + " " + stageTitle(stage), n})
	}
	slices.SortFunc(all, func(a, b overrun) int {
		return cmp.Or(cmp.Compare(b.times, a.times), strings.Compare(a.what, b.what))
	})
	var texts []string
	for _, o := range all {
		texts = append(texts, o.what+", "+plural(int(o.times), "time", "times"))
	}
	return strings.Join(texts, "; ")
}

// failedLately returns the failures of the last minutes, the newest first. Those in clients are the
// fault of their clients.
func (page *overviewPage) failedLately(now time.Time) (failed, clients []activity.Ended) {
	for _, e := range page.Failures {
		switch {
		case now.Sub(e.Start) > lately:
		case e.Code == codes.InvalidArgument.String(), e.Code == codes.Canceled.String():
			clients = append(clients, e)
		default:
			failed = append(failed, e)
		}
	}
	return failed, clients
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

// formatAge formats a duration with one unit, or two.
func formatAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// sparkBars is the number of bars in a drawing of hit ratios.
const sparkBars = 30

// waterfall is a slow request with its stages on a time axis.
type waterfall struct {
	activity.Ended
	Bars []stageBar
}

// stageBar is a stage, or a block of a stage, on the time axis of its request, in percent.
type stageBar struct {
	Name     string
	Block    bool
	X, Width float64
	Total    time.Duration
}

func newWaterfall(e activity.Ended) waterfall {
	w := waterfall{Ended: e}
	whole := float64(max(e.Duration, 1))
	bar := func(name string, block bool, from, until, total time.Duration) {
		x := min(max(float64(from)/whole*100, 0), 99.5)
		w.Bars = append(w.Bars, stageBar{
			Name: name, Block: block, X: x,
			Width: min(max(float64(until-from)/whole*100, 0.5), 100-x), Total: total,
		})
	}
	for _, s := range e.Stages {
		bar(stageTitle(s.Name), false, s.From, s.Until, s.Total)
		for _, b := range s.Blocks {
			if len(s.Blocks) > 1 || e.Queried > 1 {
				bar(b.ID, true, b.From, b.Until, b.Until-b.From)
			}
		}
	}
	return w
}
