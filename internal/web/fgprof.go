package web

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/felixge/fgprof"
)

// serveFgprof samples all goroutines, waiting ones too, for the requested time. It replaces
// fgprof's own handler, which continues after its client has disconnected.
func serveFgprof(w http.ResponseWriter, r *http.Request) {
	length, format := 30*time.Second, fgprof.FormatPprof
	if s := r.FormValue("seconds"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 || n > int(maxProfile.Seconds()) {
			http.Error(
				w,
				fmt.Sprintf("seconds: %q is not a number from 1 to %.0f", s, maxProfile.Seconds()),
				http.StatusBadRequest,
			)
			return
		}
		length = time.Duration(n) * time.Second
	}
	switch f := fgprof.Format(r.FormValue("format")); f {
	case "", fgprof.FormatPprof:
		w.Header().Set("Content-Type", "application/octet-stream")
	case fgprof.FormatFolded:
		format = f
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	default:
		http.Error(w, fmt.Sprintf("format: got %q, want pprof or folded", f), http.StatusBadRequest)
		return
	}
	end := time.NewTimer(length)
	defer end.Stop()
	stop := fgprof.Start(w, format)
	select {
	case <-end.C:
	case <-r.Context().Done():
	}
	_ = stop() // writes the profile; fails only if the client has disconnected
}
