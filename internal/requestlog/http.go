package requestlog

import (
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	idHeader = "X-Request-ID"
	// apiPath is the prefix of the paths that Thanos's store logs. Probes and scrapes are not
	// logged.
	apiPath = "/api/v1/"
)

// HTTP logs the requests that next answers: those of the API, or those that http.config names.
func (l *Log) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conf := l.conf.Load()
		d := conf.decideHTTP(r)
		if d == never {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get(idHeader) == "" {
			r.Header.Set(idHeader, ulid.Make().String())
		}
		start := time.Now()
		about := []any{
			"http.method", bounded(r.Method+" "+r.URL.String(), maxURLBytes),
			"http.request_id", bounded(r.Header.Get(idHeader), maxIDBytes),
			"http.user_agent", bounded(r.Header.Get("User-Agent"), maxHeaderBytes),
			"thanos.method_name", bounded(methodName(r.URL.Path), maxIDBytes),
		}
		write := func(level slog.Level, msg string, more ...any) {
			if level >= conf.http.level {
				l.http.Log(r.Context(), level, msg, append(more, about...)...)
			}
		}
		if d == atStartAndEnd {
			write(slog.LevelDebug, "started call", "http.start_time", start.String())
		}
		// the status if next panics before it answers
		s := &statusWriter{ResponseWriter: w, status: http.StatusInternalServerError}
		defer func() {
			level := slog.LevelError
			if s.status >= 200 && s.status < 500 {
				level = slog.LevelDebug
			}
			write(level, "finished call",
				"http.status_code", strconv.Itoa(s.status),
				"http.time_ms", float64(time.Since(start).Microseconds())/1000,
				"http.remote_addr", bounded(remote(r), maxHeaderBytes),
			)
		}()
		next.ServeHTTP(s, r)
		if !s.wrote {
			s.status = http.StatusOK // net/http sends 200 for a handler that writes nothing
		}
	})
}

// decideHTTP returns when to log a request.
func (c *Config) decideHTTP(r *http.Request) decision {
	if len(c.http.only) == 0 {
		if strings.HasPrefix(r.URL.Path, apiPath) {
			return c.http.decision
		}
		return never
	}
	if c.http.only[endpoint{r.URL.Path, 0}] {
		return c.http.decision
	}
	// Accept the port in the Host header and the listening port, because a service may map one to
	// the other.
	for _, port := range []uint16{hostPort(r.Host), localPort(r)} {
		if port != 0 && c.http.only[endpoint{r.URL.Path, port}] {
			return c.http.decision
		}
	}
	return never
}

func hostPort(host string) uint16 {
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

func localPort(r *http.Request) uint16 {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return 0
	}
	return hostPort(addr.String())
}

// methodName returns Thanos's name for an endpoint of the API. For other paths, it joins the
// elements of the path.
func methodName(path string) string {
	name := strings.ReplaceAll(strings.Trim(strings.TrimPrefix(path, apiPath), "/"), "/", "_")
	switch name {
	case "status_runtimeinfo":
		return "status_runtime"
	case "status_buildinfo":
		return "status_build"
	}
	return name
}

func remote(r *http.Request) string {
	if via := r.Header.Get("X-Forwarded-For"); via != "" {
		return via
	}
	return r.RemoteAddr
}

// statusWriter records the status of the answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.wrote && status >= 200 { // 1xx is not the final answer
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.status, w.wrote = http.StatusOK, true
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap returns the wrapped writer, for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
