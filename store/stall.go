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

// defaultSendStall is half of a Querier's default query time-out (--query.timeout, 2 minutes). A
// Querier that merges stores lazily stops reading one store while it waits for another, which may
// take a while. But requests that wait for the bytes of an unread answer must get them while there
// is time to answer.
const defaultSendStall = time.Minute

// stallChecks is how often requests are checked within the time-out. A stall therefore ends late by
// at most an eighth of the time-out.
const stallChecks = 8

// finisher is a method of grpc's streams that grpc.ServerTransportStream does not declare. Only
// this method ends a stream whose handler is blocked in Send, because the handler cannot return.
// grpc itself uses it when RecvMsg finds a broken stream. It queues the status behind what was
// sent, and Send returns.
type finisher interface {
	WriteStatus(st *status.Status) error
}

// stalls aborts requests whose client stops reading the answer, or reads it so slowly that other
// clients get no place. A server has one stalls for all requests. It checks them periodically,
// because then sending a frame costs only three atomic writes.
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
			Help: "Series requests that were aborted because their client did not read the answer in time.",
		}),
	}
}

// sending is the state of a request that sends frames, as stalls sees it.
type sending struct {
	stalls *stalls
	ctx    context.Context
	begin  time.Time
	// since is when the running Send began, in nanoseconds after begin. It is 0 while none runs,
	// and ended after a stall.
	since atomic.Int64
	// unread is the total duration of the Sends that have returned, in nanoseconds.
	unread atomic.Int64
	// why is the status for the client of an aborted request. It is set before since becomes ended.
	why atomic.Pointer[status.Status]
}

const ended = -1

// watch registers a request that sends frames. The caller calls stop at its end.
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

// send runs one Send. After a stall it returns the status of the stall, because this is the status
// that the client got.
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

// slowly is the status for a client that reads so slowly that other clients get no place.
func (s *stalls) slowly(unread time.Duration) *status.Status {
	return status.Newf(codes.Aborted,
		"the client did not read frames of its answer for %s in total, while it has its full share of "+
			"places and another client waits for one: request aborted to free its place (retry it)",
		unread.Round(time.Second))
}

func (s *stalls) status() *status.Status {
	return status.Newf(codes.Aborted,
		"the client did not read a frame of its answer for %s (--store.grpc.send-stall-timeout): "+
			"request aborted to free its place and bytes (retry it)", s.timeout)
}

// check aborts the requests that have stalled. It aborts at most one slowly read request at a time,
// because that may free enough places.
func (s *stalls) check() {
	type slow struct {
		*sending
		since  int64
		unread time.Duration
	}
	var stalled []*sending
	var slowly []slow
	ending := false // whether an aborted request still has its place
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

// mark marks the Send that began at since as ended. It returns false if that Send has returned.
//
// INVARIANT: the goroutine whose mark succeeds aborts the request.
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
	s.log.Warn("client does not read its answer, request aborted",
		"client", client, "timeout", s.timeout, "why", w.why.Load().Message())
	if stream, ok := grpc.ServerTransportStreamFromContext(w.ctx).(finisher); ok {
		if err := stream.WriteStatus(w.why.Load()); err != nil {
			// The connection is closed, and the request has ended with it.
			s.log.Debug("cannot send the status of an aborted request", "client", client, "err",
				err)
		}
	}
	if s.onStall != nil {
		s.onStall(w.ctx)
	}
}
