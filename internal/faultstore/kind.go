package faultstore

import (
	"fmt"

	"github.com/thanos-io/objstore"
)

// Kind is a kind of fault.
type Kind int

const (
	// ServerError answers with HTTP 500.
	ServerError Kind = iota + 1
	// SlowDown answers with HTTP 503 and S3's SlowDown: the bucket throttles.
	SlowDown
	// Timeout never answers. The call ends with its context.
	Timeout
	// SlowFirstByte answers correctly after Rule.Delay.
	SlowFirstByte
	// Reset breaks the connection, within the body of a read, otherwise before an answer.
	Reset
	// AccessDenied answers with HTTP 403.
	AccessDenied
	// Vanished answers as if the object did not exist. Listings still name it.
	Vanished

	// StalledBody sends the first Rule.At bytes of the body, and then nothing for Rule.Delay, or
	// for ever.
	StalledBody
	// TruncatedBody ends the body early, and the client notices: io.ErrUnexpectedEOF.
	TruncatedBody
	// ShortBody ends the body early without an error, as if less had been requested.
	ShortBody
	// LongBody continues past the end of the requested range.
	LongBody
	// FlippedBit changes one bit of the body.
	FlippedBit

	// ListingError breaks a listing after its first Rule.At entries.
	ListingError
	// HTMLPage answers a listing with HTTP 200 and a page, as an ingress does during maintenance.
	HTMLPage
	// ErrorDocument answers a listing with HTTP 200 and S3's document for errors.
	ErrorDocument
	// ShortListing ends a listing after its first Rule.At entries, without an error.
	ShortListing
	// Archived answers reads of an object with HTTP 403 and S3's InvalidObjectState: a lifecycle
	// rule has moved it to a storage class that cannot be read. Listings and HEAD still show it.
	Archived

	lastKind = Archived
)

// Kinds returns all kinds.
func Kinds() []Kind {
	var all []Kind
	for k := ServerError; k <= lastKind; k++ {
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
	case HTMLPage:
		return "page for a listing"
	case ErrorDocument:
		return "error document for a listing"
	case ShortListing:
		return "short listing"
	case Archived:
		return "archived"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// InBody reports whether the kind changes the body of a read rather than the answer to a call.
func (k Kind) InBody() bool { return k >= StalledBody && k <= FlippedBit }

// NoListing reports whether the kind answers a list request with a document that is no listing.
func (k Kind) NoListing() bool { return k == HTMLPage || k == ErrorDocument }

// hits reports whether an operation can meet the kind.
func (k Kind) hits(op string) bool {
	switch {
	case k.InBody(), k == Archived:
		return op == objstore.OpGet || op == objstore.OpGetRange
	case k == Vanished:
		return op != objstore.OpIter
	case k == ListingError, k == ShortListing, k.NoListing():
		return op == objstore.OpIter
	}
	return true
}
