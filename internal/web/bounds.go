package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBody bounds the body of a request. The longest useful body is the list of addresses that
	// go tool pprof posts. bodyTimeout bounds the time to receive it.
	maxBody     = 1 << 20
	bodyTimeout = 30 * time.Second
	// answerTimeout bounds the time from the request until its client has read the answer, so that
	// slow clients do not block others. Requests below /debug/ get maxProfile more.
	answerTimeout = 2 * time.Minute
	// maxDebug bounds the concurrent requests below /debug/, maxShown those for pages and /api/v1/,
	// which go through all blocks, and maxScrapes those for /metrics. Further requests are rejected
	// with Retry-After. The type places divides the last two bounds among clients.
	maxDebug   = 4
	maxShown   = 8
	maxScrapes = 8
	// maxShard bounds the concurrent requests below shardPrefix: the questions of other shards.
	maxShard    = 64
	shardPrefix = "/-/shard/"
	// maxProfile bounds the length of a profile, because each sample of a wall-clock profile stops
	// the process for a moment, and an execution trace grows with time.
	maxProfile = 5 * time.Minute
)

// atMost returns a wrapper of handlers. At most n requests to all wrapped handlers run
// concurrently; further requests are rejected.
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

// inTime bounds the size of a body, the time to receive it and the time to send the answer.
func inTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// deadlines fail only with the recorder of a test
		now, c := time.Now(), http.NewResponseController(w)
		answer := answerTimeout
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			answer += maxProfile
		}
		// INVARIANT: every request sets its deadline, because the connection keeps the last one.
		_ = c.SetWriteDeadline(now.Add(answer))
		if r.ContentLength != 0 {
			_ = c.SetReadDeadline(now.Add(bodyTimeout))
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		next.ServeHTTP(w, r)
	})
}

// boundSeconds rejects profiles above maxProfile.
func boundSeconds(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := r.URL.Query().Get("seconds"); s != "" {
			// same as net/http/pprof: a trace may last a fraction of a second
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
