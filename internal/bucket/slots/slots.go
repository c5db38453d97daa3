package slots

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultMax = 96
	defaultMin = 4
	// cutInterval is how long a cut has to show before the next one.
	cutInterval = time.Second
)

// Options of Slots. The zero value works.
type Options struct {
	// Max is how many reads run at once while the bucket does not mind; 96 by
	// default: below the 100 idle connections that the clients keep, so that
	// connections are not made and thrown away under load.
	Max int
	// Min is what the limit never falls below; 4 by default, at most Max. Fewer
	// would leave too few answers to notice that the bucket has recovered.
	Min int
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

// Slots bound the reads of a bucket. They are safe for concurrent use.
type Slots struct {
	max, min  float64
	throttles prometheus.Counter

	mu      sync.Mutex
	limit   float64 // of used, rounded down
	used    int     // held, and not resting
	waiting *list.List
	cut     time.Time // when limit was halved last
}

// New returns slots of which none is taken.
func New(o Options) *Slots {
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Min <= 0 {
		o.Min = defaultMin
	}
	s := &Slots{
		max:     float64(o.Max),
		min:     float64(min(o.Min, o.Max)),
		limit:   float64(o.Max),
		waiting: list.New(),
		throttles: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_throttles_total",
			Help: "Answers by which the bucket asked for fewer requests.",
		}),
	}
	if o.Registerer != nil {
		s.register(o.Registerer)
	}
	return s
}

func (s *Slots) register(reg prometheus.Registerer) {
	gauge := func(state string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_bucket_slots",
			Help:        "Reads of the bucket that may run at once, that run, and that wait for their turn.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return value()
		})
	}
	reg.MustRegister(s.throttles,
		gauge("limit", func() float64 { return float64(int(s.limit)) }),
		gauge("used", func() float64 { return float64(s.used) }),
		gauge("waiting", func() float64 { return float64(s.waiting.Len()) }))
}

// Acquire takes a slot, and waits for one until ctx ends.
func (s *Slots) Acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.takeLocked() {
		s.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	place := s.waiting.PushBack(granted)
	s.mu.Unlock()

	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-granted: // in between: it is not wanted any more
		s.used--
		s.grantLocked()
	default:
		s.waiting.Remove(place)
	}
	return ctx.Err()
}

// TryAcquire takes a slot only if one is spare: free, with nobody waiting.
func (s *Slots) TryAcquire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked()
}

// Release gives a slot back.
func (s *Slots) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.grantLocked()
}

// Rest tells that the holder of a slot sends nothing until it calls Wake.
func (s *Slots) Rest() { s.Release() }

// Wake counts a resting holder again. It does not wait.
func (s *Slots) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used++
}

// Throttled tells that the bucket asked for fewer requests.
func (s *Slots) Throttled() {
	s.throttles.Inc()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.cut) < cutInterval {
		return
	}
	s.cut = now
	s.limit = max(s.limit/2, s.min)
}

// Answered tells that the bucket answered a request as it was asked to.
func (s *Slots) Answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == s.max {
		return
	}
	s.limit = min(s.limit+1/s.limit, s.max)
	s.grantLocked()
}

func (s *Slots) takeLocked() bool {
	if s.waiting.Len() > 0 || s.used >= int(s.limit) {
		return false
	}
	s.used++
	return true
}

// grantLocked gives free slots to those who wait longest.
func (s *Slots) grantLocked() {
	for s.used < int(s.limit) {
		first := s.waiting.Front()
		if first == nil {
			return
		}
		s.waiting.Remove(first)
		s.used++
		close(first.Value.(chan struct{}))
	}
}
