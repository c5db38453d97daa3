package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFgprof(t *testing.T) {
	h := site(Options{Disable: true})
	f := func(query string, code int, want string) {
		t.Helper()
		if w := get(t, h, "/debug/fgprof?"+query, ""); w.Code != code ||
			!strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %q, want %d %q", query, w.Code, w.Body, code, want)
		}
	}
	f("seconds=0", 400, `seconds: "0" is not a number from 1 to 300`)
	f("seconds=301", 400, "seconds")
	f("seconds=x", 400, "seconds")
	f("format=x", 400, "format")

	// A CPU profile would not show this wait.
	stuck := make(chan struct{})
	go waitForEver(stuck)
	defer close(stuck)
	f("seconds=1&format=folded", 200, "waitForEver")
}

func waitForEver(c chan struct{}) { <-c }

// TestFgprofEndsWithItsClient checks that profiling stops when the client disconnects, on the clock
// of a synctest bubble.
func TestFgprofEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/debug/fgprof?seconds=300", nil)
		site(Options{Disable: true}).ServeHTTP(httptest.NewRecorder(), r)
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want 1s, until the client disconnected", took)
		}
	})
}
