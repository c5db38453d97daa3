package s3server

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"larder/internal/faultstore"
)

const piece = 64 << 10

// send sends a body, with the fault that hits it.
func (s *Server) send(w http.ResponseWriter, r *http.Request, c *content, fault faultstore.Fault) {
	announced, at := c.size, fault.At(c.size)
	var body io.Reader = c
	switch fault.Kind {
	case faultstore.ShortBody:
		announced = at
		body = io.LimitReader(c, at)
	case faultstore.LongBody:
		announced = c.size + at + 1
		body = io.MultiReader(c, io.LimitReader(noise{}, at+1))
	case faultstore.FlippedBit:
		body = &flip{Reader: c, at: at, bit: fault.Bit()}
	case faultstore.StalledBody,
		faultstore.TruncatedBody,
		faultstore.Reset,
		faultstore.ListingError:
		body = io.LimitReader(c, at)
	}
	w.Header().Set("Content-Length", strconv.FormatInt(announced, 10))
	w.WriteHeader(c.status)
	began, sent := time.Now(), int64(0)
	if !s.copy(w, r, body, began, &sent) {
		return
	}
	switch fault.Kind {
	case faultstore.StalledBody:
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		if fault.Delay == 0 {
			<-r.Context().Done()
		} else if pause(r.Context(), fault.Delay) {
			s.copy(w, r, c, began.Add(fault.Delay), &sent)
		}
	case faultstore.TruncatedBody, faultstore.ListingError:
		cut(w, true, false)
	case faultstore.Reset:
		cut(w, true, true)
	}
}

// copy passes a body on at the speed that a connection has. It reports whether all of it went.
func (s *Server) copy(
	w http.ResponseWriter, r *http.Request, body io.Reader, began time.Time, sent *int64,
) bool {
	if s.opts.Latency.BytesPerSecond <= 0 {
		n, err := io.Copy(w, body)
		*sent += n
		return err == nil
	}
	buf := make([]byte, min(piece, max(s.opts.Latency.BytesPerSecond/50, 1)))
	for {
		n, err := io.ReadFull(body, buf)
		if n > 0 {
			*sent += int64(n)
			if !pause(r.Context(), time.Until(began.Add(s.opts.Latency.after(*sent)))) {
				return false
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return err == io.EOF || err == io.ErrUnexpectedEOF
		}
	}
}

// cut ends a connection, in order or by a reset: in the middle of an answer, which has to leave
// before, or instead of one.
func cut(w http.ResponseWriter, begun, reset bool) {
	var flushed error
	if begun {
		flushed = http.NewResponseController(w).Flush()
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil || flushed != nil {
		panic(http.ErrAbortHandler) // breaks the connection, in the way that is left
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		// Refused, the connection ends in order.
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// noise is what follows the end of a range.
type noise struct{}

func (noise) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// flip changes a bit of what it reads.
type flip struct {
	io.Reader
	at  int64
	bit byte
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if f.at >= 0 && f.at < int64(n) {
		p[f.at] ^= f.bit
	}
	f.at -= int64(n)
	return n, err
}
