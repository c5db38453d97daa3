package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBody bounds what a client sends: the longest that means something is a list of addresses,
	// which go tool pprof posts. bodyTimeout is how long that may take.
	maxBody     = 1 << 20
	bodyTimeout = 30 * time.Second
	// answerTimeout is how long a request has until its client has taken the answer; below /debug/,
	// where it may take a while to make, maxProfile more. So a client that reads slowly keeps
	// nobody from what follows.
	answerTimeout = 2 * time.Minute
	// maxDebug is how many profiles and the like are made at once, maxShown how many pages and
	// answers of the API, each of which goes through all blocks, maxScrapes how many answers of
	// /metrics. What comes on top is told to come again. Clients share the places of the last two:
	// see places.
	maxDebug   = 4
	maxShown   = 8
	maxScrapes = 8
	// maxProfile bounds a profile in time. Each sample of a wall-clock one stops the process for a
	// moment, and an execution trace grows with it.
	maxProfile = 5 * time.Minute
)

// atMost returns a wrapper of handlers of which n run at once, all together.
func atMost(n int) func(http.Handler) http.Handler {
	places := make(chan struct{}, n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
				next.ServeHTTP(w, r)
			default:
				w.Header().Set("Retry-After", "1")
				http.Error(
					w, "busy with requests of this kind, try again", http.StatusServiceUnavailable,
				)
			}
		})
	}
}

// inTime ends a request whose body is too long or comes too slowly, when the body is read (by its
// handler, or by the server after it), and one whose answer is not taken.
func inTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// only the recorder of a test refuses deadlines
		now, c := time.Now(), http.NewResponseController(w)
		answer := answerTimeout
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			answer += maxProfile
		}
		// INVARIANT: for every request: the deadline stays with the connection.
		_ = c.SetWriteDeadline(now.Add(answer))
		if r.ContentLength != 0 {
			_ = c.SetReadDeadline(now.Add(bodyTimeout))
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		next.ServeHTTP(w, r)
	})
}

// boundSeconds refuses a profile that would take too long.
func boundSeconds(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := r.URL.Query().Get("seconds"); s != "" {
			// As net/http/pprof reads it: a trace may be of a part of a second.
			if n, err := strconv.ParseFloat(s, 64); err == nil && n > maxProfile.Seconds() {
				http.Error(
					w, "seconds: at most "+strconv.Itoa(int(maxProfile.Seconds())),
					http.StatusBadRequest,
				)
				return
			}
		}
		next(w, r)
	})
}
