package memcached

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func TestReplyIsCheckedAsItPasses(t *testing.T) {
	keys := []string{"a", "b", "c"}
	// f checks a reply, in one piece and in small pieces. passed is the part that gomemcache may
	// see, fault the error for the rest.
	f := func(text, passed, fault string) {
		t.Helper()
		for _, step := range []int{len(text), 1, 3} {
			var r reply
			r.start(keys, 10)
			var got []byte
			var err error
			for piece := range slices.Chunk([]byte(text), step) {
				var n int
				n, err = r.pass(piece)
				if got = append(got, piece[:n]...); err != nil {
					break
				}
			}
			if fault == "" && err == nil && !r.complete() {
				t.Errorf("%q in steps of %d: not complete", text, step)
			}
			if (err == nil) != (fault == "") ||
				err != nil && !strings.Contains(err.Error(), fault) {
				t.Errorf("%q in steps of %d: got %v, want %q", text, step, err, fault)
			}
			// All but the end of an invalid line may have passed.
			if !bytes.HasPrefix(got, []byte(passed)) || step == len(text) &&
				string(got) != passed || bytes.HasSuffix(got[len(passed):], []byte("\n")) {
				t.Errorf("%q in steps of %d: passed %q, want %q", text, step, got, passed)
			}
		}
	}
	whole := func(s string) { t.Helper(); f(s, s, "") }
	whole("END\r\n")
	whole("VALUE a 0 3 1\r\nxyz\r\nEND\r\n")
	whole(
		"VALUE a 0 3\r\nxyz\r\nVALUE c 4294967295 10 18446744073709551615\r\nEND\r\nEND\r\n\r\nEND\r\n",
	)
	whole("VALUE c 0 0 1\r\n\r\nVALUE a 0 0 1\r\n\r\nEND\r\n")
	f("VALUE a 0 3 1\r\nxyz\r\nVALUE a 0 3 1\r\nxyz\r\nEND\r\n", "VALUE a 0 3 1\r\nxyz\r\n",
		"not requested")
	f("VALUE d 0 3 1\r\nxyz\r\nEND\r\n", "", "not requested")
	f("VALUE  0 3 1\r\nxyz\r\nEND\r\n", "", "not requested")
	f("VALUE a 0 11 1\r\n", "", "11 bytes announced")
	f("VALUE d 0 11 1\r\n", "", "not requested")
	f("VALUE a 0 1073741825 1\r\n", "", "unexpected line") // above memcached's maximum
	f("VALUE a 0 1099511627776 1\r\n", "", "unexpected line")
	f("VALUE a 0 18446744073709551617 1\r\n", "", "unexpected line")
	f("VALUE a 0 +3 1\r\n", "", "unexpected line")
	f("VALUE a 0x1 3 1\r\n", "", "unexpected line")
	f("VALUE a 0 3 \r\n", "", "unexpected line")
	f("VALUE a 0 3 1 1\r\n", "", "unexpected line")
	f("VALUE a 0 3 1\nxyz\r\n", "", "carriage return")
	f("VALUE a 0 3 1\r\nxyz!\r\n", "VALUE a 0 3 1\r\nxyz", "does not end")
	f("VALUE a 0 3 1\r\nxyz\r!", "VALUE a 0 3 1\r\nxyz\r", "does not end")
	f("VALUE "+strings.Repeat("a", maxLine)+" 0 1 1\r\n", "", "a line of more than")
	f(strings.Repeat("a", maxLine+1), "", "a line of more than")
	f("END\r\nEND\r\n", "END\r\n", "after its end")
	f("STORED\r\n", "", "unexpected line")
	f("\r\n", "", "unexpected line")
	f("ERROR\r\n", "", `the server answers "ERROR"`)
	f("SERVER_ERROR out of memory\r\n", "", `the server answers "SERVER_ERROR out of memory"`)

	var r reply
	r.start(nil, 0)
	if n, err := r.pass([]byte("STORED\r\n")); n != 8 || err != nil || !r.complete() ||
		r.text() != "STORED" {
		t.Errorf("the reply to a write: %d, %v, %q", n, err, r.text())
	}
}

// script is a connection that answers every write with a text.
type script struct {
	net.Conn
	text io.Reader
}

func (s *script) Read(p []byte) (int, error)  { return s.text.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) Close() error                { return nil }
func (s *script) SetDeadline(time.Time) error { return nil }

// FuzzReply: whatever a server sends, gomemcache returns, finds only requested keys within the size
// limit, and allocates no more than that. Checking in pieces makes no difference.
func FuzzReply(f *testing.F) {
	keys := []string{"larder:a", "larder:b", "larder:c"}
	const maxSize = 1000
	f.Add([]byte("VALUE larder:a 0 3 1\r\nxyz\r\nVALUE larder:c 0 0\r\n\r\nEND\r\n"), 3)
	f.Add([]byte("VALUE larder:a 0 4294967295 1\r\nxyz\r\nEND\r\n"), 1)
	f.Add([]byte("VALUE larder:b 0 1001 1\r\n"), 7)
	f.Add([]byte("SERVER_ERROR\r\nVALUE \r\nEND\r\nEND\r\n"), 7)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		home := &lanes{addr: &serverAddr{"tcp", "fuzz"}, timeout: time.Second,
			dials: &dials{ctx: context.Background()}}
		l := newLane(home)
		l.spare = &script{text: bytes.NewReader(text)}
		items, err := l.get(time.Now().Add(time.Second), keys, maxSize)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10+uint64(len(text)) {
			t.Errorf("%d bytes of reply took %d to read", len(text), n)
		}
		if l.conn != nil && err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
			t.Errorf("the connection is kept after %v", err)
		}
		for key, item := range items {
			if !slices.Contains(keys, key) || len(item.Value) > maxSize ||
				!bytes.Contains(text, item.Value) {
				t.Errorf("found %q: %d bytes", key, len(item.Value))
			}
		}
		l.close()

		whole, pieces := reply{}, reply{}
		whole.start(keys, maxSize)
		pieces.start(keys, maxSize)
		n, wholeErr := whole.pass(text)
		if n > len(text) || wholeErr == nil && n != len(text) {
			t.Fatalf("%d of %d bytes pass", n, len(text))
		}
		var piecesErr error
		for piece := range slices.Chunk(text, 1+(step&0xff)) {
			if _, piecesErr = pieces.pass(piece); piecesErr != nil {
				break
			}
		}
		if (wholeErr == nil) != (piecesErr == nil) || whole.values != pieces.values ||
			whole.complete() != pieces.complete() {
			t.Errorf("whole: %v, %d values; in pieces: %v, %d", wholeErr, whole.values, piecesErr,
				pieces.values)
		}
	})
}
