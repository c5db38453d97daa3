package matcher

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/internal/intake"
	"larder/store/storepb"
)

// Compiler bounds what requests hold before they have their turn, and until they end: their messages
// and what the expressions in them compile to, in one account. A request that does not fit is
// refused at once.
//
// What compiling an expression takes meanwhile is reserved too, unless it is much: then it is not
// counted, but expressions like that are compiled one at a time, and are refused beyond
// passingOfMax times the account.
type Compiler struct {
	account   *intake.Account
	compiling chan struct{} // has room for the one goroutine that compiles a large expression
}

const (
	// passingOfMax is how much compiling a large expression may take, against all of the account.
	passingOfMax = 2
	// largePassing is the part of the account from which on an expression is large.
	largePassing = 16
)

func NewCompiler(account *intake.Account) *Compiler {
	return &Compiler{account: account, compiling: make(chan struct{}, 1)}
}

// Budget is what one request has of the account, and what its expressions cost. The handler's
// goroutine alone uses it.
type Budget struct {
	texts *Compiler
	held  *intake.Reservation
	ctx   context.Context

	length, written, ranges int // of expressions
}

func (a *Compiler) Open(ctx context.Context) *Budget {
	return &Budget{texts: a, held: intake.Of(ctx, a.account), ctx: ctx}
}

// Close gives everything back.
func (t *Budget) Close() { t.held.Close() }

// UntilSent is intake.Reservation.UntilSent.
func (t *Budget) UntilSent(release func()) bool { return t.held.UntilSent(release) }

// ReserveMessage reserves what a decoded message holds, with so many matchers and names in its lists, as
// far as that was not reserved when it arrived.
func (t *Budget) ReserveMessage(m proto.Message, matchers []*storepb.LabelMatcher, names ...[]string) error {
	return t.held.ReserveUpTo(messageBytes(m, matchers, names...))
}

// ReserveHints reserves what the decoded hints of a request hold.
func (t *Budget) ReserveHints(m proto.Message, matchers []*storepb.LabelMatcher) error {
	return t.held.Reserve(messageBytes(m, matchers))
}

func messageBytes(m proto.Message, matchers []*storepb.LabelMatcher, names ...[]string) int64 {
	const ofMatcher, ofName = 256, 32 // beside their text, the translated ones included
	n := int64(proto.Size(m)) + ofMatcher*int64(len(matchers))
	for _, list := range names {
		n += ofName * int64(len(list))
	}
	return n
}

// parse reserves what parsing and compiling an expression takes, as far as its text tells. The
// caller calls done when it is compiled.
func (t *Budget) parse(expr string) (done func(), err error) {
	n, limit := passingBytes(expr), t.texts.account.Limit()
	switch {
	case n > passingOfMax*limit:
		t.texts.account.CountRefusal()
		return nil, refusedf(codes.ResourceExhausted,
			"a regular expression of %d bytes may take %d bytes to compile, more than %d, a quarter of --store.request-bytes: write values as a|b|c, without special characters, ask in parts, or raise the flag",
			len(expr), n, passingOfMax*limit)
	case n > limit/largePassing:
		select {
		case t.texts.compiling <- struct{}{}:
			return func() { <-t.texts.compiling }, nil
		case <-t.ctx.Done():
			return nil, refusedf(status.FromContextError(t.ctx.Err()).Code(), "waited to compile a regular expression of %d bytes: %s", len(expr), t.ctx.Err())
		}
	}
	if err := t.held.Reserve(n); err != nil {
		return nil, err
	}
	return func() { t.held.Release(n) }, nil
}

// compiles reserves what a parsed expression takes to compile and then keeps, and holds the
// expressions of the request to their bounds.
func (t *Budget) compiles(c expressionCost) error {
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
	return t.held.Reserve(c.kept + c.passing)
}

// refused is why a request is not looked at further that may be another time, or elsewhere.
type refused struct {
	code codes.Code
	text string
}

func (r *refused) Error() string { return r.text }

// GRPCStatus gives it its code.
func (r *refused) GRPCStatus() *status.Status { return status.New(r.code, r.text) }

func refusedf(code codes.Code, format string, args ...any) error {
	return &refused{code, fmt.Sprintf(format, args...)}
}
