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
	// smallShare is the part of the account up to which a client counts as small. A quarter of the
	// account is only for small clients.
	smallShare = 64
)

// Account bounds the bytes of the messages of all requests together, and of data derived from them.
// It is safe for concurrent use.
type Account struct {
	limit, small int64
	// unpacking admits one goroutine that decompresses a large message.
	unpacking chan struct{}
	large     atomic.Int32 // large messages that are decompressed or wait for it

	mu      sync.Mutex // guards the fields below; held only for arithmetic
	used    int64
	clients map[inbound.Client]int64 // bytes of each client

	refused prometheus.Counter
}

// NewAccount returns an account of limit bytes (default 128 MiB) and registers its metrics. reg may
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
			Help: "Bytes of the messages of requests and of their compiled expressions: " +
				"the maximum (limit) and those reserved now (in_use).",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value()) })
	}
	a.refused = f.NewCounter(prometheus.CounterOpts{
		Name: "larder_request_texts_refused_total",
		Help: "Requests that were rejected because their message or their compiled expressions " +
			"did not fit into the account of request messages.",
	})
	return a
}

// Limit returns the size of the account in bytes.
func (a *Account) Limit() int64 { return a.limit }

// InUse returns the number of reserved bytes.
func (a *Account) InUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

// CountRefusal counts a request that its handler rejected because its expressions did not fit.
func (a *Account) CountRefusal() { a.refused.Inc() }

// fullError is the error of a request that does not fit into the account.
type fullError string

func fullf(format string, args ...any) error { return fullError(fmt.Sprintf(format, args...)) }

func (e fullError) Error() string { return string(e) }

// GRPCStatus returns ResourceExhausted.
func (e fullError) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, string(e))
}

// Reservation is the part of an Account that one request has reserved. It is safe for concurrent
// use. After Close it is empty and Reserve fails, because the handler of a stream that was ended
// early may still receive messages.
type Reservation struct {
	account    *Account
	client     inbound.Client
	registered bool // by a Registrar
	unary      bool // a Registrar sends the answer

	// Guarded by account.mu.
	bytes   int64
	message int64 // of bytes, for the last message
	closed  bool

	// answerSent is called once the answer was sent. Only the handler's goroutine uses it.
	answerSent func()
	// encoded is the answer in parts, nil if the handler returns it. The handler's goroutine alone
	// uses it.
	encoded [][]byte
}

// Encoded answers a unary request with a message that is encoded already, in parts that must not
// change until the answer was sent. What the handler returns besides is ignored, unless it is an
// error. Encoded reports false for a request that did not come through a Registrar; then the
// handler returns the message.
func (r *Reservation) Encoded(parts ...[]byte) bool {
	if !r.unary {
		return false
	}
	r.encoded = parts
	return true
}

// UntilSent registers release, to be called once the answer of a unary request was sent. grpc keeps
// the encoded answer until the client reads it, which may be long after the handler has returned.
// UntilSent returns false if the request did not come through a Registrar. The caller must then
// call release itself.
func (r *Reservation) UntilSent(release func()) bool {
	if !r.registered {
		return false
	}
	r.answerSent = release
	return true
}

// Open returns an empty reservation for the request of ctx. The caller must close it.
func (a *Account) Open(ctx context.Context) *Reservation {
	return &Reservation{account: a, client: inbound.ClientOf(ctx)}
}

type reservationKey struct{}

// Of returns the reservation of the request of ctx, or a new one of account if the request did not
// come through a Registrar. The caller must close it when the request ends.
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

// ReserveUpTo grows the reservation to at least n bytes in total.
func (r *Reservation) ReserveUpTo(n int64) error {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	return r.reserve(n - r.bytes)
}

// reserve adds n bytes. Call it with account.mu held.
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
			r.bytes+n, a.used, available)
	}
	a.used += n
	a.clients[r.client] += n
	r.bytes += n
	return nil
}

// Release releases n bytes.
func (r *Reservation) Release(n int64) {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.release(n)
}

// release releases n bytes. Call it with account.mu held.
func (r *Reservation) release(n int64) {
	n = min(n, r.bytes)
	a := r.account
	a.used -= n
	if a.clients[r.client] -= n; a.clients[r.client] == 0 {
		delete(a.clients, r.client)
	}
	r.bytes -= n
}

// Close releases everything. It may be called again.
func (r *Reservation) Close() {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.release(r.bytes)
	r.closed = true
}

// fieldBytes is the memory of a field besides its text: a matcher of four fields needs 256 bytes.
const fieldBytes = 64

// receive replaces the reservation for the last message by that for the next one.
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
