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

// Compiler bounds the memory that requests use for their messages and for what their expressions
// compile to. Both are reserved in the account of request messages. A request that does not fit is
// rejected at once. A Compiler is safe for concurrent use.
type Compiler struct {
	account *intake.Account
	// of length 1: the goroutine that compiles a large expression has sent to it
	large chan struct{}
}

const (
	// largeFraction divides the account: an expression is large if compiling it needs more.
	largeFraction = 16
	// maxAccounts multiplies the account: an expression is rejected if compiling it needs more.
	maxAccounts = 2
)

// NewCompiler returns a Compiler that reserves in account.
func NewCompiler(account *intake.Account) *Compiler {
	return &Compiler{account: account, large: make(chan struct{}, 1)}
}

// Open returns the budget of the request with this context. The caller closes it when the request
// ends.
func (c *Compiler) Open(ctx context.Context) *Budget {
	return &Budget{compiler: c, reservation: intake.Of(ctx, c.account), ctx: ctx}
}

// Budget holds what one request has reserved, and the sums that bound its expressions. It is not
// safe for concurrent use.
type Budget struct {
	compiler    *Compiler
	reservation *intake.Reservation
	ctx         context.Context

	text, repeated, ranges int // sums of cost over all expressions
}

// Close releases everything.
func (b *Budget) Close() { b.reservation.Close() }

// Encoded answers a unary request with a message that is encoded already. See
// intake.Reservation.Encoded.
func (b *Budget) Encoded(parts ...[]byte) bool { return b.reservation.Encoded(parts...) }

// UntilSent calls release once the answer of a unary request was sent. See
// intake.Reservation.UntilSent.
func (b *Budget) UntilSent(release func()) bool { return b.reservation.UntilSent(release) }

// ReserveMessage makes the reservation cover a decoded message with these matchers and lists of
// names. It adds only what was not reserved when the message arrived.
func (b *Budget) ReserveMessage(
	m proto.Message, matchers []*storepb.LabelMatcher, names ...[]string,
) error {
	return b.reservation.ReserveUpTo(messageBytes(m, matchers, names...))
}

// ReserveHints reserves what the decoded hints of a request hold, with their matchers.
func (b *Budget) ReserveHints(hints proto.Message, matchers []*storepb.LabelMatcher) error {
	return b.reservation.Reserve(messageBytes(hints, matchers))
}

func messageBytes(m proto.Message, matchers []*storepb.LabelMatcher, names ...[]string) int64 {
	// Besides the text, and including the parsed matcher.
	const perMatcher, perName = 256, 32
	n := int64(proto.Size(m)) + perMatcher*int64(len(matchers))
	for _, list := range names {
		n += perName * int64(len(list))
	}
	return n
}

// reserveParsing reserves what parsing and compiling an expression needs meanwhile, as far as its
// text tells. A large expression reserves nothing: it waits until no other large one is compiled.
// The caller calls release after compiling.
func (b *Budget) reserveParsing(expr string) (release func(), err error) {
	n, limit := estimate(expr), b.compiler.account.Limit()
	switch {
	case n > maxAccounts*limit:
		b.compiler.account.CountRefusal()
		return nil, rejectf(codes.ResourceExhausted,
			"a regular expression of %d bytes may take %d bytes to compile, more than %d, "+
				"a quarter of --store.request-bytes: write values as a|b|c, "+
				"without special characters, ask in parts, or raise the flag",
			len(expr), n, maxAccounts*limit)
	case n > limit/largeFraction:
		select {
		case b.compiler.large <- struct{}{}:
			return func() { <-b.compiler.large }, nil
		case <-b.ctx.Done():
			return nil, rejectf(status.FromContextError(b.ctx.Err()).Code(),
				"waited to compile a regular expression of %d bytes: %s", len(expr), b.ctx.Err())
		}
	}
	if err := b.reservation.Reserve(n); err != nil {
		return nil, err
	}
	return func() { b.reservation.Release(n) }, nil
}

// reserve reserves what a parsed expression needs while it is compiled and afterwards. It fails if
// the expressions of the request exceed their bounds together.
func (b *Budget) reserve(c cost) error {
	b.text += c.text
	b.repeated += c.repeated
	b.ranges += c.ranges
	switch {
	case b.text > maxText:
		return tooMuchText(b.text)
	case b.repeated > maxRepeated:
		return fmt.Errorf("repetitions such as x{9} come to more than %d, written out", maxRepeated)
	case b.ranges > maxRanges:
		return fmt.Errorf("classes of characters such as \\pL come to %d ranges, more than %d",
			b.ranges/2, maxRanges/2)
	}
	return b.reservation.Reserve(c.compiled + c.compiling)
}
