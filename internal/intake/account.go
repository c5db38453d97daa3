package intake

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
)

const (
	defaultLimit = 128 << 20
	// smallShare is the part of the account that one client address may have to count as small.
	// Small clients find a quarter of the account free of others.
	smallShare = 64
)

// Account bounds the bytes that the messages of all requests hold together, with what is derived
// from them. It is safe for concurrent use.
type Account struct {
	limit, small int64
	// unpacking has room for the one goroutine that decompresses a large message.
	unpacking chan struct{}
	large     atomic.Int32 // messages that are in it, or wait for it

	mu      sync.Mutex // guards what follows; held for arithmetic alone
	used    int64
	clients map[inbound.Client]int64 // what each client has

	refused prometheus.Counter
}

// NewAccount makes an account of limit bytes (default 128 MiB) and registers its metrics. reg may
// be nil.
func NewAccount(limit int64, reg prometheus.Registerer) *Account {
	if limit <= 0 {
		limit = defaultLimit
	}
	a := &Account{
		limit: limit, small: limit / smallShare, unpacking: make(chan struct{}, 1),
		clients: map[inbound.Client]int64{},
	}
	f := promauto.With(reg)
	for state, value := range map[string]func() int64{"limit": a.Limit, "in_use": a.InUse} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "larder_request_text_bytes",
			Help: "Bytes that the messages of requests and what their expressions compile to " +
				"may take together (limit), and take now (in_use).",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value()) })
	}
	a.refused = f.NewCounter(prometheus.CounterOpts{
		Name: "larder_request_texts_refused_total",
		Help: "Requests that were refused because the account of request messages had no bytes " +
			"left for their message or for what its expressions compile to.",
	})
	return a
}

// Limit is the size of the account in bytes.
func (a *Account) Limit() int64 { return a.limit }

// InUse is how many bytes are reserved now.
func (a *Account) InUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

// CountRefusal counts a request that its handler refused for want of memory for its expressions.
func (a *Account) CountRefusal() { a.refused.Inc() }

// fullError is the error of a request for which the account has too little left.
type fullError string

func fullf(format string, args ...any) error { return fullError(fmt.Sprintf(format, args...)) }

func (e fullError) Error() string { return string(e) }

// GRPCStatus makes it a ResourceExhausted.
func (e fullError) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, string(e))
}

// Reservation is what one request has of an Account. It is safe for concurrent use. After Close it
// is empty and refuses more: the handler of a stream that was ended early may still receive.
type Reservation struct {
	account    *Account
	client     inbound.Client
	registered bool // by a Registrar

	// Guarded by account.mu.
	bytes   int64
	message int64 // of these, for the message received last
	closed  bool

	// answerSent is what is to be released once the answer was sent. The handler's goroutine alone
	// uses it.
	answerSent func()
}

// UntilSent has release called once the answer of a unary request was sent, and not when its
// handler returns: until its client reads it, grpc keeps the encoded answer. It reports false for a
// request that did not come through a Registrar; then release is the caller's.
func (r *Reservation) UntilSent(release func()) bool {
	if !r.registered {
		return false
	}
	r.answerSent = release
	return true
}

// Open returns an empty reservation of the request with this context. The caller closes it.
func (a *Account) Open(ctx context.Context) *Reservation {
	return &Reservation{account: a, client: inbound.ClientOf(ctx)}
}

type reservationKey struct{}

// Of returns the reservation of the request with this context, or an empty one of account if the
// request did not come through a Registrar. The caller closes it when the request ends.
func Of(ctx context.Context, account *Account) *Reservation {
	if r, ok := ctx.Value(reservationKey{}).(*Reservation); ok && r.account == account {
		return r
	}
	return account.Open(ctx)
}

// Reserve adds n bytes, or fails at once with ResourceExhausted.
func (r *Reservation) Reserve(n int64) error {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	return r.reserve(n)
}

// ReserveUpTo makes the reservation at least n bytes in all.
func (r *Reservation) ReserveUpTo(n int64) error {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	return r.reserve(n - r.bytes)
}

// reserve is called with the lock held.
func (r *Reservation) reserve(n int64) error {
	a := r.account
	if r.closed {
		return status.Error(codes.Canceled, "the request has ended")
	}
	if n <= 0 {
		return nil
	}
	available := a.limit
	if a.clients[r.client]+n > a.small*int64(max(1, r.client.Shares)) {
		available -= a.limit / 4
	}
	if n > available-a.used {
		a.refused.Inc()
		return fullf(
			"the request needs %d bytes for its message, its matchers and what they compile to, and "+
				"all requests have %d of %d bytes for that, an eighth of --store.request-bytes: write "+
				"values as a|b|c, without special characters, ask in parts or later, or raise the flag",
			r.bytes+n,
			a.used,
			available,
		)
	}
	a.used += n
	a.clients[r.client] += n
	r.bytes += n
	return nil
}

// Release gives n bytes back.
func (r *Reservation) Release(n int64) {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.release(n)
}

// release is called with the lock held.
func (r *Reservation) release(n int64) {
	n = min(n, r.bytes)
	a := r.account
	a.used -= n
	if a.clients[r.client] -= n; a.clients[r.client] == 0 {
		delete(a.clients, r.client)
	}
	r.bytes -= n
}

// Close gives everything back. It may be called again.
func (r *Reservation) Close() {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.release(r.bytes)
	r.closed = true
}

// fieldBytes is what a field takes in memory beside its text: a matcher of four fields takes 256.
const fieldBytes = 64

// receive replaces what the last message held by what the next one will hold.
func (r *Reservation) receive(bytes, fields int) error {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.release(r.message)
	r.message = 0
	n := int64(bytes) + fieldBytes*int64(fields)
	if err := r.reserve(n); err != nil {
		return err
	}
	r.message = n
	return nil
}
