package slots

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMax is the default of Options.Max.
const DefaultMax = 256

const (
	defaultStart = 96
	defaultMin   = 4
	// cutInterval is the shortest time between two reductions of the limit.
	cutInterval = time.Second
)

// Options of a Limiter. The zero value works.
type Options struct {
	// Max is the number of reads that may run at once while the bucket does not throttle. Default
	// 256. A read that transfers has a buffer of 256 KiB, and a connection.
	Max int
	// Start is the number at the start. Default 96, at most Max. The limit grows from there if
	// reads wait.
	Start int
	// Min is the number that the limit never falls below. Default 4, at most Max. With fewer there
	// are too few answers to notice that the bucket has recovered.
	Min int
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

// Limiter bounds the concurrent reads of a bucket. It is safe for concurrent use.
type Limiter struct {
	max, min  float64
	start     float64
	throttles prometheus.Counter

	mu      sync.Mutex
	limit   float64   // of used, rounded down
	used    int       // slots that are held and not paused
	waiting int       // reads that wait
	cut     time.Time // when limit was last halved
	// turns has the requests with waiting reads, the one whose turn is next first. owners finds
	// them.
	turns  *list.List // of *queue
	owners map[any]*list.Element
}

// queue has the waiting reads of one request, at least one.
type queue struct {
	owner any
	reads *list.List // of chan struct{}, closed when the slot is granted
}

// New returns a limiter with all slots free.
func New(o Options) *Limiter {
	if o.Max <= 0 {
		o.Max = DefaultMax
	}
	if o.Min <= 0 {
		o.Min = defaultMin
	}
	if o.Start <= 0 {
		o.Start = defaultStart
	}
	start := float64(min(o.Start, o.Max))
	l := &Limiter{
		max:    float64(o.Max),
		min:    float64(min(o.Min, o.Max)),
		start:  start,
		limit:  start,
		turns:  list.New(),
		owners: map[any]*list.Element{},
		throttles: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_throttles_total",
			Help: "Answers of the bucket that asked for fewer requests (503 SlowDown, 429).",
		}),
	}
	if o.Registerer != nil {
		l.register(o.Registerer)
	}
	return l
}

func (l *Limiter) register(reg prometheus.Registerer) {
	gauge := func(state string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_bucket_slots",
			Help:        "Concurrent reads of the bucket: the limit, running reads, and waiting reads.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return value()
		})
	}
	reg.MustRegister(l.throttles,
		gauge("limit", func() float64 { return float64(int(l.limit)) }),
		gauge("used", func() float64 { return float64(l.used) }),
		gauge("waiting", func() float64 { return float64(l.waiting) }))
}

// Acquire acquires a slot. It waits for one until ctx ends, and returns the error of ctx then.
func (l *Limiter) Acquire(ctx context.Context) error { return l.AcquireFor(ctx, nil) }

// AcquireFor acquires a slot for a read of owner, which must be comparable. Owners with waiting
// reads take turns, one slot each. The reads of one owner are served in the order of their arrival.
// nil is the owner of all reads without one.
func (l *Limiter) AcquireFor(ctx context.Context, owner any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.acquireLocked() {
		l.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	turn := l.owners[owner]
	if turn == nil {
		turn = l.turns.PushBack(&queue{owner: owner, reads: list.New()})
		l.owners[owner] = turn
	}
	reads := turn.Value.(*queue).reads
	place := reads.PushBack(granted)
	l.waiting++
	l.mu.Unlock()

	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-granted: // in the meantime: pass it on
		l.used--
		l.grantLocked()
	default:
		reads.Remove(place)
		l.waiting--
		if reads.Len() == 0 {
			l.turns.Remove(turn)
			delete(l.owners, owner)
		}
	}
	return ctx.Err()
}

// TryAcquire acquires a slot if one is free and no read waits for one.
func (l *Limiter) TryAcquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acquireLocked()
}

// Release releases a slot.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	l.grantLocked()
}

// Pause declares that the holder of a slot sends nothing until it calls Resume. The slot does not
// count in the meantime.
func (l *Limiter) Pause() { l.Release() }

// Resume counts a paused slot again. It does not wait, and may exceed the limit.
func (l *Limiter) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used++
}

// Throttled reports an answer by which the bucket asked for fewer requests.
func (l *Limiter) Throttled() {
	l.throttles.Inc()
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.cut) < cutInterval {
		return
	}
	l.cut = now
	l.limit = max(l.limit/2, l.min)
}

// Answered reports that the bucket served a request. It raises the limit, but above that of the
// start only while reads wait: a limit that no read has used says nothing about the bucket.
func (l *Limiter) Answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit == l.max || (l.limit >= l.start && l.waiting == 0) {
		return
	}
	l.limit = min(l.limit+1/l.limit, l.max)
	l.grantLocked()
}

func (l *Limiter) acquireLocked() bool {
	if l.waiting > 0 || l.used >= int(l.limit) {
		return false
	}
	l.used++
	return true
}

// grantLocked grants free slots by turns.
func (l *Limiter) grantLocked() {
	for l.used < int(l.limit) && l.waiting > 0 {
		turn := l.turns.Front()
		q := turn.Value.(*queue)
		close(q.reads.Remove(q.reads.Front()).(chan struct{}))
		l.used++
		l.waiting--
		if q.reads.Len() > 0 {
			l.turns.MoveToBack(turn)
			continue
		}
		l.turns.Remove(turn)
		delete(l.owners, q.owner)
	}
}
