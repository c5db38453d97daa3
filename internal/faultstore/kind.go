package faultstore

import (
	"fmt"

	"github.com/thanos-io/objstore"
)

// Kind is what goes wrong.
type Kind int

const (
	// ServerError answers with HTTP 500.
	ServerError Kind = iota + 1
	// SlowDown answers with HTTP 503 and S3's SlowDown: the bucket throttles.
	SlowDown
	// Timeout never answers: the call ends with its context.
	Timeout
	// SlowFirstByte answers rightly, after Rule.Delay.
	SlowFirstByte
	// Reset breaks the connection: in the body, where there is one, else instead of an answer.
	Reset
	// AccessDenied answers with HTTP 403.
	AccessDenied
	// Vanished answers as if the object did not exist. Listings go on to name it.
	Vanished

	// StalledBody sends the body's first Rule.At bytes and then, for Rule.Delay or for ever, nothing.
	StalledBody
	// TruncatedBody ends the body early, and the client notices: io.ErrUnexpectedEOF.
	TruncatedBody
	// ShortBody ends the body early in all order, as if less had been asked for.
	ShortBody
	// LongBody goes on after the end of what was asked for.
	LongBody
	// FlippedBit changes one bit of the body.
	FlippedBit

	// ListingError breaks a listing after its first Rule.At entries.
	ListingError
)

// Kinds returns all kinds.
func Kinds() []Kind {
	var all []Kind
	for k := ServerError; k <= ListingError; k++ {
		all = append(all, k)
	}
	return all
}

func (k Kind) String() string {
	switch k {
	case ServerError:
		return "server error"
	case SlowDown:
		return "slow down"
	case Timeout:
		return "time-out"
	case SlowFirstByte:
		return "slow first byte"
	case Reset:
		return "connection reset"
	case AccessDenied:
		return "access denied"
	case Vanished:
		return "vanished"
	case StalledBody:
		return "stalled body"
	case TruncatedBody:
		return "truncated body"
	case ShortBody:
		return "short body"
	case LongBody:
		return "long body"
	case FlippedBit:
		return "flipped bit"
	case ListingError:
		return "listing error"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// InBody tells whether the kind changes the body of a read rather than the answer to a call.
func (k Kind) InBody() bool { return k >= StalledBody && k <= FlippedBit }

// hits tells whether an operation can meet the kind.
func (k Kind) hits(op string) bool {
	switch {
	case k.InBody():
		return op == objstore.OpGet || op == objstore.OpGetRange
	case k == Vanished:
		return op != objstore.OpIter
	case k == ListingError:
		return op == objstore.OpIter
	}
	return true
}
