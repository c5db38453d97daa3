package store

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/budget"
	"larder/internal/requestlog"
)

// Overrun is a request that exceeded a budget.
type Overrun struct {
	Ended  time.Time
	Method string
	Tenant string
	// Asked is what the request asked for: its matchers, and the label of a LabelValues request.
	// It is text of the client, up to about 1 KiB.
	Asked string
	// Total is the time of the request without FlowControl, the time in which its client did not
	// read.
	Total, FlowControl time.Duration
	// Exceeded are the budgets that the request exceeded.
	Exceeded []Exceeded
}

// Exceeded is a budget that a request exceeded.
type Exceeded struct {
	// Stage is a stage, total or first_frame.
	Stage        string
	Took, Budget time.Duration
}

// recentOverruns is how many overruns a server keeps.
const recentOverruns = 64

// overruns keeps the last overruns of a server.
type overruns struct {
	mu   sync.Mutex // guards what follows
	ring []Overrun  // up to recentOverruns
	next int        // the oldest, once the ring is full
}

func (o *overruns) add(v Overrun) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ring) < recentOverruns {
		o.ring = append(o.ring, v)
		return
	}
	o.ring[o.next] = v
	o.next = (o.next + 1) % recentOverruns
}

// Overruns returns the last requests that exceeded a budget, up to 64, the newest first.
func (s *Server) Overruns() []Overrun {
	o := &s.overruns
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Overrun, 0, len(o.ring))
	for i := range o.ring {
		out = append(out, o.ring[(o.next+len(o.ring)-1-i)%len(o.ring)])
	}
	return out
}

// took returns the time of a row of a budget. The total does not contain the time in which the
// client did not read the answer, because the gateway cannot shorten it.
func (r *request) took(row string, total time.Duration) time.Duration {
	switch row {
	case budget.Total:
		return total
	case budget.FirstFrame:
		return r.firstFrame
	}
	for i, name := range stageNames {
		if name == row {
			return time.Duration(r.stages[i].Load())
		}
	}
	return 0
}

// compare compares the request, which has ended, with its budgets. Overruns are counted, kept for
// the status page, and logged.
func (r *request) compare() {
	times := r.server.opts.Budgets.Of(r.method)
	if times == (budget.Times{}) {
		return
	}
	held := time.Duration(r.stages[stageFlowControl].Load())
	total := time.Since(r.start) - held
	for _, row := range budgetRows {
		if took, b := r.took(row, total), times.Of(row); b > 0 && took > b {
			r.exceeded = append(r.exceeded, Exceeded{Stage: row, Took: took, Budget: b})
			r.server.metrics.overruns.WithLabelValues(r.method, row).Inc()
		}
	}
	if len(r.exceeded) == 0 {
		return
	}
	asked := matchersText(r.asked.matchers)
	if r.asked.label != "" {
		asked = clipText(r.asked.label) + " of " + asked
	}
	r.server.overruns.add(Overrun{
		Ended: time.Now(), Method: r.method, Tenant: r.tenant, Asked: asked, Total: total,
		FlowControl: held, Exceeded: r.exceeded,
	})
	requestlog.Slow(r.ctx)
}

// exceededText lists the stages whose budgets the request exceeded; "" if there is none.
func (r *request) exceededText() string {
	var names []string
	for _, e := range r.exceeded {
		names = append(names, e.Stage)
	}
	return strings.Join(names, ",")
}

// budgetRows are the rows of budgets.
var budgetRows = budget.Rows()

// budgetMetrics registers the metrics of budgets. It returns the counter of overruns.
func budgetMetrics(f factory, current *budget.Current) *prometheus.CounterVec {
	overruns := f.counters("larder_budget_overruns_total",
		"Requests that exceeded their latency budget, by method and by the stage that exceeded it.",
		"method", "stage")
	for _, method := range budget.Methods() {
		for _, row := range budgetRows {
			if !budget.Applies(method, row) {
				continue
			}
			overruns.WithLabelValues(method, row)
			f.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "larder_budget_seconds",
				Help:        "Latency budget of a stage of a request. 0 = none.",
				ConstLabels: prometheus.Labels{"method": method, "stage": row},
			}, func() float64 {
				times := current.Of(method)
				return times.Of(row).Seconds()
			})
		}
	}
	return overruns
}
