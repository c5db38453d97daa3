package memcached

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// maxLine is longer than any line of a reply: VALUE, a key of 250 bytes, flags, size and version.
const maxLine = 320

// errMalformed is wrapped by the errors of all replies that memcached would not send.
var errMalformed = errors.New("memcached: malformed reply")

// errTooLarge is returned for a reply that contains a value above MaxItemSize, stored by a client
// with a larger limit. The connection is closed, because reading past the value would take as long
// as receiving it. The values that follow in the reply are lost. Only expanded postings are that
// large, and they are requested one at a time; all pages have one size.
var errTooLarge = errors.New("memcached: a value above the item size limit")

// serverError is the error line of a server's reply.
type serverError struct{ line string }

func (e *serverError) Error() string {
	return "memcached: the server answers " + strconv.Quote(e.line)
}

const (
	replyLine = iota // receiving a line
	replyData        // receiving a value, its line end included
	replyDone        // the reply is complete
)

// reply checks one reply of a server, byte by byte, before gomemcache sees it. gomemcache allocates
// as many bytes as a reply announces, and keeps as many values as it receives.
//
// INVARIANT: what pass accepts announces only values of requested keys, each at most as often as it
// was requested, none above maxSize.
type reply struct {
	keys    []string // requested; nil: the reply is one line
	maxSize int64

	state int
	need  int64 // bytes of data still to come, with the line end
	line  [maxLine]byte
	n     int // of line

	seen     []bool // by position in keys
	next     int    // position after the last one seen; servers answer in the order of the request
	values   int
	received int64
	fault    error
}

// start prepares for the reply to a request for keys, or for a reply of one line if there are none.
func (r *reply) start(keys []string, maxSize int64) {
	seen := r.seen[:0]
	if cap(seen) < len(keys) {
		seen = make([]bool, 0, len(keys))
	}
	seen = seen[:len(keys)]
	clear(seen)
	r.keys, r.maxSize, r.seen = keys, maxSize, seen
	r.state, r.n, r.next, r.values, r.received, r.fault = replyLine, 0, 0, 0, 0, nil
}

// complete reports whether exactly one complete reply was received.
func (r *reply) complete() bool { return r.state == replyDone && r.fault == nil }

// text returns the line of a reply of one line.
func (r *reply) text() string { return string(bytes.TrimRight(r.line[:r.n], "\r\n")) }

// pass returns how many of the bytes are valid, and an error about the first one that is not. It
// never accepts the end of an invalid line.
func (r *reply) pass(p []byte) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	r.received += int64(len(p))
	for i := 0; i < len(p); {
		switch r.state {
		case replyLine:
			end := bytes.IndexByte(p[i:], '\n') + 1
			if end == 0 {
				end = len(p) - i
			}
			if r.n+end > maxLine {
				return i, r.fail("a line of more than %d bytes: %.60q", maxLine, r.line[:r.n])
			}
			r.n += copy(r.line[r.n:], p[i:i+end])
			if r.line[r.n-1] == '\n' {
				if err := r.endOfLine(); err != nil {
					return i, err
				}
			}
			i += end
		case replyData:
			if r.need > 2 {
				skip := min(r.need-2, int64(len(p)-i))
				r.need -= skip
				i += int(skip)
				continue
			}
			if want := "\n\r"[r.need-1]; p[i] != want {
				return i, r.fail("a value does not end where its size says")
			}
			i++
			if r.need--; r.need == 0 {
				r.state, r.n = replyLine, 0
			}
		case replyDone:
			return i, r.fail("%d bytes after its end: %.60q", len(p)-i, p[i:])
		}
	}
	return len(p), nil
}

func (r *reply) fail(format string, args ...any) error {
	r.fault = fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
	return r.fault
}

var (
	valueWord  = []byte("VALUE ")
	endLine    = []byte("END\r\n")
	lineEnd    = []byte("\r\n")
	errorWords = [][]byte{[]byte("ERROR"), []byte("CLIENT_ERROR"), []byte("SERVER_ERROR")}
)

// endOfLine processes a complete line.
func (r *reply) endOfLine() error {
	line := r.line[:r.n]
	if !bytes.HasSuffix(line, lineEnd) {
		return r.fail("a line without a carriage return: %.60q", line)
	}
	switch {
	case r.keys == nil:
		r.state = replyDone
		return nil
	case bytes.Equal(line, endLine):
		r.state = replyDone
		return nil
	case bytes.HasPrefix(line, valueWord):
		return r.value(line[len(valueWord) : len(line)-len(lineEnd)])
	}
	for _, word := range errorWords {
		if bytes.HasPrefix(line, word) {
			r.fault = &serverError{r.text()}
			return r.fault
		}
	}
	return r.fail("unexpected line %.60q", line)
}

// value processes the announcement of a value: key, flags, size, and the version that `gets`
// requests.
func (r *reply) value(line []byte) error {
	key, rest, _ := bytes.Cut(line, []byte(" "))
	flags, rest, _ := bytes.Cut(rest, []byte(" "))
	size, version, versioned := bytes.Cut(rest, []byte(" "))
	length, ok := decimal(size, LargestItem)
	if _, flagged := decimal(flags, math.MaxUint32); !ok || !flagged {
		return r.fail("unexpected line %.60q", r.line[:r.n])
	}
	if _, ok := decimal(version, math.MaxUint64); versioned && !ok {
		return r.fail("unexpected line %.60q", r.line[:r.n])
	}
	if !r.expect(key) {
		return r.fail("a value of a key that was not requested: %.60q", key)
	}
	if length > uint64(r.maxSize) {
		r.fault = fmt.Errorf("%w: %d bytes announced, the limit is %d", errTooLarge, length,
			r.maxSize)
		return r.fault
	}
	r.state, r.need = replyData, int64(length)+int64(len(lineEnd))
	r.values++
	return nil
}

// expect marks a key as received. It returns false if it is not expected.
func (r *reply) expect(key []byte) bool {
	for i := range r.keys {
		at := (r.next + i) % len(r.keys)
		if !r.seen[at] && r.keys[at] == string(key) {
			r.seen[at] = true
			r.next = at + 1
			return true
		}
	}
	return false
}

// decimal parses a number of digits only, without sign or underscore, up to limit.
func decimal(b []byte, limit uint64) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	return v, err == nil && v <= limit
}
