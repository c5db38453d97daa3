package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/storepb"
)

// texts is the account of what requests hold before they have their turn, and until they end: their messages and what the expressions in them compile
// to. Whoever finds no room there is refused at once: nothing waits for it.
//
// What compiling an expression takes meanwhile is had from the account too, unless it is much: then it is not counted, but expressions like that are compiled
// one at a time, and are refused beyond passingOfMax times the account. Who waits for that waits for work that needs nothing but a core.
type texts struct {
	max, small int64
	compiling  chan struct{} // has room for whoever compiles a large expression

	mu   sync.Mutex // guards used; held for arithmetic alone
	used int64

	refused prometheus.Counter
}

const (
	defaultTexts = defaultAllowance / 8
	// passingOfMax is how much compiling a large expression may take, against all of the account.
	passingOfMax = 2
	// largePassing is the part of the account from which on compiling is a matter of the one place for it.
	largePassing = 16
	// smallText is the part of the account up to which a request is a small one, which finds a quarter free of others.
	smallText = 256
)

func newTexts(bytes int64, reg prometheus.Registerer) *texts {
	if bytes <= 0 {
		bytes = defaultTexts
	}
	a := &texts{max: bytes, small: bytes / smallText, compiling: make(chan struct{}, 1)}
	f := promauto.With(reg)
	for state, value := range map[string]func() int64{"limit": func() int64 { return a.max }, "in_use": a.inUse} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "larder_request_text_bytes", Help: "Bytes that the messages of requests and what their expressions compile to may take together (limit), and take now (in_use).",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value()) })
	}
	a.refused = f.NewCounter(prometheus.CounterOpts{
		Name: "larder_request_texts_refused_total", Help: "Requests that were refused because there was no room for their message or for what their expressions compile to.",
	})
	return a
}

func (a *texts) inUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

// text is what one request has of the account, and what its expressions cost. It is the handler's goroutine's alone.
type text struct {
	account *texts
	ctx     context.Context
	bytes   int64

	length, written, ranges int // of expressions
}

func (a *texts) open(ctx context.Context) *text { return &text{account: a, ctx: ctx} }

// take takes n more bytes.
func (t *text) take(n int64) error {
	a := t.account
	a.mu.Lock()
	defer a.mu.Unlock()
	most := a.max
	if t.bytes+n > a.small {
		most -= a.max / 4
	}
	if n > most-a.used {
		a.refused.Inc()
		return refusedf(codes.ResourceExhausted,
			"the request needs %d bytes for its matchers and what they compile to, and all requests have %d of %d bytes for that, an eighth of --store.request-bytes: "+
				"write values as a|b|c, without special characters, ask in parts or later, or raise the flag", t.bytes+n, a.used, most)
	}
	a.used += n
	t.bytes += n
	return nil
}

// give gives n bytes back.
func (t *text) give(n int64) {
	t.account.mu.Lock()
	defer t.account.mu.Unlock()
	t.account.used -= n
	t.bytes -= n
}

// close gives everything back.
func (t *text) close() { t.give(t.bytes) }

// message takes what a decoded message holds, with so many matchers and names in its lists.
func (t *text) message(m proto.Message, matchers []*storepb.LabelMatcher, names ...[]string) error {
	const ofMatcher, ofName = 256, 32 // beside their text, the translated ones included
	n := int64(proto.Size(m)) + ofMatcher*int64(len(matchers))
	for _, list := range names {
		n += ofName * int64(len(list))
	}
	return t.take(n)
}

// requestHints is the hints of a request.
type requestHints interface {
	proto.Message
	GetBlockMatchers() []*storepb.LabelMatcher
}

// blockMatchers decodes the hints of a request, which may have none, into h, and translates their matchers. of names the request.
func (t *text) blockMatchers(raw *anypb.Any, h requestHints, of string) (ms []*labels.Matcher, err error) {
	if raw == nil {
		return nil, nil
	}
	if err := storepb.UnmarshalHints(raw, h); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "unmarshal %s request hints: %s", of, clipped(err.Error()))
	}
	if err = t.message(h, h.GetBlockMatchers()); err == nil {
		ms, err = promMatchers(nil, t, h.GetBlockMatchers())
	}
	if err != nil {
		return nil, refusal("translate request hints labels matchers: ", err)
	}
	return ms, nil
}

// parse takes what parsing and compiling an expression takes, as far as its text tells, which the caller gives back by calling done.
func (t *text) parse(expr string) (done func(), err error) {
	n, a := passingBytes(expr), t.account
	switch {
	case n > passingOfMax*a.max:
		a.refused.Inc()
		return nil, refusedf(codes.ResourceExhausted,
			"a regular expression of %d bytes may take %d bytes to compile, more than %d, a quarter of --store.request-bytes: write values as a|b|c, without special characters, ask in parts, or raise the flag",
			len(expr), n, passingOfMax*a.max)
	case n > a.max/largePassing:
		select {
		case a.compiling <- struct{}{}:
			return func() { <-a.compiling }, nil
		case <-t.ctx.Done():
			return nil, refusedf(status.FromContextError(t.ctx.Err()).Code(), "waited to compile a regular expression of %d bytes: %s", len(expr), t.ctx.Err())
		}
	}
	if err := t.take(n); err != nil {
		return nil, err
	}
	return func() { t.give(n) }, nil
}

// compiles takes what an expression that is parsed takes to compile and then keeps, and holds those of the request to their bounds.
func (t *text) compiles(c expressionCost) error {
	t.length += c.text
	t.written += c.written
	t.ranges += c.ranges
	switch {
	case t.length > maxText:
		return tooMuchText(t.length)
	case t.written > maxRepetitions:
		return fmt.Errorf("repetitions such as x{9} come to more than %d, written out", maxRepetitions)
	case t.ranges > maxRanges:
		return fmt.Errorf("classes of characters such as \\pL come to %d ranges, more than %d", t.ranges/2, maxRanges/2)
	}
	return t.take(c.kept + c.passing)
}

// refused is why a request is not looked at further that may be another time, or elsewhere.
type refused struct {
	code codes.Code
	text string
}

func (r *refused) Error() string { return r.text }

func refusedf(code codes.Code, format string, args ...any) error {
	return &refused{code, fmt.Sprintf(format, args...)}
}

// refusal is what the client gets for an error of translating its request, after what was translated.
func refusal(what string, err error) error {
	code := codes.InvalidArgument
	var r *refused
	if errors.As(err, &r) {
		code = r.code
	}
	return status.Error(code, what+err.Error())
}
