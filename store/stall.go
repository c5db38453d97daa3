package store

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
	"larder/store/storepb"
)

// defaultSendStall is half of the time that a Querier gives a query (--query.timeout, 2 minutes): a
// Querier that merges stores lazily stops reading one while it waits for another, and that must be
// allowed to take a while; but what waits for the bytes of a request that nobody reads should get
// them while it has time left to be answered.
const defaultSendStall = time.Minute

// stallChecks is how often within the time-out the requests are looked at, so that a stall ends at
// most so much of the time-out late.
const stallChecks = 8

// finisher is what grpc's streams are besides a grpc.ServerTransportStream. A handler has no other
// way to unblock its own Send than to return, which it cannot do while it sends; but grpc itself
// ends a stream so when another goroutine finds in RecvMsg that it is broken: the status is queued
// behind what was sent, and the Send returns.
type finisher interface {
	WriteStatus(st *status.Status) error
}

// stalls ends requests whose client stops reading their answer, or reads it so slowly that other
// clients do not come to their turn. There is one for all requests of a server, and it looks at
// them only now and then: a frame that is sent costs three atomic writes.
type stalls struct {
	timeout            time.Duration // 0 or less: never
	keepsOthersWaiting func(inbound.Client) bool
	onStall            func(ctx context.Context)
	log                *slog.Logger
	ended              prometheus.Counter

	mu      sync.Mutex // guards what follows; never held while calling out
	sending map[*sending]struct{}
	timer   *time.Timer // runs while there are requests
}

func newStalls(
	timeout time.Duration, keepsOthersWaiting func(inbound.Client) bool,
	onStall func(context.Context), log *slog.Logger, reg prometheus.Registerer,
) *stalls {
	if timeout == 0 {
		timeout = defaultSendStall
	}
	return &stalls{
		timeout: timeout, keepsOthersWaiting: keepsOthersWaiting, onStall: onStall, log: log,
		sending: map[*sending]struct{}{},
		ended: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "larder_series_send_stalled_total",
			Help: "Series requests that were ended because their client left a frame unread for the stall time-out.",
		}),
	}
}

// sending is what a request that sends frames shows to stalls.
type sending struct {
	stalls *stalls
	ctx    context.Context
	begin  time.Time
	// since is when the running Send began, in nanoseconds after begin; 0 while none runs, ended
	// after a stall.
	since atomic.Int64
	// unread is how long the Sends that have returned took, in nanoseconds.
	unread atomic.Int64
	// why is what a client that was ended is told, set before since becomes ended.
	why atomic.Pointer[status.Status]
}

const ended = -1

// watch begins to look after a request that sends frames. stop ends that.
func (s *stalls) watch(ctx context.Context) *sending {
	w := &sending{stalls: s, ctx: ctx, begin: time.Now()}
	if s.timeout < 0 {
		return w
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending[w] = struct{}{}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.timeout/stallChecks, s.check)
	}
	return w
}

func (w *sending) stop() {
	w.stalls.mu.Lock()
	defer w.stalls.mu.Unlock()
	delete(w.stalls.sending, w)
}

// send runs one Send. Its error is that of the stall if there was one: to the client the request
// has ended by it, however far the Send came.
func (w *sending) send(stream grpc.ServerStream, f *storepb.Frame) error {
	at := max(1, int64(time.Since(w.begin)))
	if !w.since.CompareAndSwap(0, at) {
		return w.err()
	}
	err := stream.SendMsg(f)
	if !w.since.CompareAndSwap(at, 0) {
		return w.err()
	}
	w.unread.Add(int64(time.Since(w.begin)) - at)
	return err
}

func (w *sending) err() error { return w.why.Load().Err() }

// slowly is the status of a client that reads so slowly that others do not come to their turn.
func (s *stalls) slowly(unread time.Duration) *status.Status {
	return status.Newf(
		codes.Aborted,
		"the client left frames of its answer unread for %s in all, and has most places at the gate "+
			"while another client waits for one: ended, it may be tried again",
		unread.Round(time.Second),
	)
}

func (s *stalls) status() *status.Status {
	return status.Newf(
		codes.Aborted,
		"the client left a frame of its answer unread for %s (--store.grpc.send-stall-timeout): ended, so that others get what the request held; it may be tried again",
		s.timeout,
	)
}

// check ends the requests that have stalled. Of those that are read slowly it ends one at a time:
// it may be enough.
func (s *stalls) check() {
	type slow struct {
		*sending
		since  int64
		unread time.Duration
	}
	var stalled []*sending
	var slowly []slow
	ending := false // a request that was ended has its place still
	s.mu.Lock()
	for w := range s.sending {
		since := w.since.Load()
		ending = ending || since == ended
		if since <= 0 {
			continue
		}
		waits := time.Since(w.begin) - time.Duration(since)
		if waits >= s.timeout {
			if w.mark(since, s.status()) {
				stalled = append(stalled, w)
			}
			continue
		}
		unread := waits + time.Duration(w.unread.Load())
		if unread >= s.timeout {
			slowly = append(slowly, slow{w, since, unread})
		}
	}
	if len(s.sending) > 0 {
		s.timer.Reset(s.timeout / stallChecks)
	} else {
		s.timer = nil
	}
	s.mu.Unlock()
	slices.SortFunc(slowly, func(a, b slow) int { return cmp.Compare(b.unread, a.unread) })
	for _, w := range slowly {
		if ending {
			break
		}
		if s.keepsOthersWaiting(inbound.ClientOf(w.ctx)) && w.mark(w.since, s.slowly(w.unread)) {
			stalled, ending = append(stalled, w.sending), true
		}
	}
	for _, w := range stalled {
		s.end(w)
	}
}

// mark turns the Send that began at since into one that is ended. It reports false if the Send has
// returned.
//
// INVARIANT: the goroutine whose mark succeeds ends the request.
func (w *sending) mark(since int64, why *status.Status) bool {
	w.why.Store(why)
	return w.since.CompareAndSwap(since, ended)
}

func (s *stalls) end(w *sending) {
	s.ended.Inc()
	client := "unknown"
	if p, ok := peer.FromContext(w.ctx); ok {
		client = p.Addr.String()
	}
	s.log.Warn("a client does not read its answer, the request is ended",
		"client", client, "timeout", s.timeout, "why", w.why.Load().Message())
	if stream, ok := grpc.ServerTransportStreamFromContext(w.ctx).(finisher); ok {
		if err := stream.WriteStatus(w.why.Load()); err != nil {
			s.log.Debug(
				"end a request",
				"client",
				client,
				"err",
				err,
			) // its connection is gone, and so is the request
		}
	}
	if s.onStall != nil {
		s.onStall(w.ctx)
	}
}
