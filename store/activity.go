package store

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/activity"
	"larder/internal/bucket/cost"
)

// shownBlocks is how many blocks of a stage a request remembers: the slowest ones.
const shownBlocks = 4

// progress is where a request is, and when its stages ran. It allocates nothing, because every
// request has one.
type progress struct {
	now    atomic.Int32 // the stage that began last
	stages [stageCount]struct{ from, until atomic.Int64 }

	mu     sync.Mutex // guards blocks
	blocks [stageCount][shownBlocks]blockTime
}

// ran notes that a stage ran until now, for d.
func (p *progress) ran(id stageID, start time.Time, d time.Duration) {
	until := int64(time.Since(start))
	s := &p.stages[id]
	// 0 is none.
	for from := max(until-int64(d), 1); ; {
		old := s.from.Load()
		if old != 0 && old <= from || s.from.CompareAndSwap(old, from) {
			break
		}
	}
	for {
		old := s.until.Load()
		if old >= until || s.until.CompareAndSwap(old, until) {
			break
		}
	}
}

// note keeps the time of a block if it is one of the slowest of its stage.
func (p *progress) note(id stageID, t blockTime) {
	p.mu.Lock()
	defer p.mu.Unlock()
	least := &p.blocks[id][0]
	for i := range p.blocks[id] {
		if b := &p.blocks[id][i]; b.duration() < least.duration() {
			least = b
		}
	}
	if t.duration() > least.duration() {
		*least = t
	}
}

// slowest returns the slowest blocks of a stage, the slowest first.
func (p *progress) slowest(id stageID, start time.Time) (out []activity.Block) {
	p.mu.Lock()
	times := p.blocks[id]
	p.mu.Unlock()
	slices.SortFunc(times[:], func(a, b blockTime) int {
		return cmp.Compare(b.duration(), a.duration())
	})
	for _, t := range times {
		if t.block != (ulid.ULID{}) {
			out = append(out, activity.Block{
				ID: t.block.String(), From: t.start.Sub(start), Until: t.end.Sub(start),
			})
		}
	}
	return out
}

// Started implements activity.Live.
func (r *request) Started() time.Time { return r.start }

// Activity implements activity.Live. It may run concurrently with the request, and after its end.
func (r *request) Activity() activity.Request {
	stage := stageID(r.progress.now.Load())
	out := activity.Request{
		Method: r.method, Tenant: r.tenant, Matchers: matchersText(r.asked.matchers),
		MinTime: r.asked.minT, MaxTime: r.asked.maxT, Start: r.start,
		Stage: stageNames[stage], Waiting: stage == stageGate,
	}
	if p, ok := peer.FromContext(r.ctx); ok {
		out.Peer = p.Addr.String()
	}
	return out
}

// ended describes the request after its end. The goroutine of the handler calls it.
func (r *request) ended(d time.Duration, err error) activity.Ended {
	e := activity.Ended{
		Request: r.Activity(), Duration: d, Queried: r.blocksQueried, Series: r.sent.Series,
	}
	if err != nil {
		s := status.Convert(err)
		e.Code, e.Err = s.Code().String(), clipText(s.Message())
		const most = 1 << 10
		if text := s.Message(); len(text) <= most {
			e.Err = text
		}
	}
	for _, k := range r.kinds() {
		e.Requests += k.acct.Requests.Load()
		e.Bytes += k.acct.FetchedBytes.Load()
	}
	e.USD = float64(e.Requests) * cost.USDPerRequest
	for id, name := range stageNames {
		total, s := time.Duration(r.stages[id].Load()), &r.progress.stages[id]
		if total <= 0 {
			continue
		}
		e.Stages = append(e.Stages, activity.Stage{
			Name: name, Total: total, From: time.Duration(s.from.Load()),
			Until: time.Duration(s.until.Load()), Blocks: r.progress.slowest(stageID(id), r.start),
		})
	}
	if sc := trace.SpanContextFromContext(r.ctx); sc.IsSampled() {
		e.TraceID = sc.TraceID().String()
	}
	return e
}

// timedBlock calls f, which works on a block, and notes how long it took. times may be nil.
func (r *request) timedBlock(times *blockTimes, id stageID, block ulid.ULID, f func() error) error {
	t := blockTime{block: block, start: time.Now()}
	err := f()
	t.end = time.Now()
	r.progress.note(id, t)
	times.add(t)
	return err
}
