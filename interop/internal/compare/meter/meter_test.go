package meter_test

import (
	"net/http/httptest"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/interop/internal/compare/meter"
)

// TestOwnProcess measures this process.
func TestOwnProcess(t *testing.T) {
	srv := httptest.NewServer(promhttp.Handler())
	defer srv.Close()
	p := meter.Process{PID: os.Getpid(), Metrics: srv.URL}
	before, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	var kept []byte
	a, err := p.Allocating(t.Context(), func() error {
		kept = make([]byte, size)
		for i := range kept {
			kept[i] = byte(i)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Bytes < 0.9*size || a.Bytes > 1.5*size {
		t.Errorf("allocated %.0f bytes, want about %d", a.Bytes, size)
	}
	after, err := p.CPU()
	if err != nil || after <= before {
		t.Errorf("CPU time went from %s to %s: %v", before, after, err)
	}
	rss, err := p.Resident()
	if err != nil || rss < size {
		t.Errorf("resident set of %d bytes, want at least %d: %v", rss, size, err)
	}
	peak, err := p.Peak()
	if err != nil || peak < rss {
		t.Errorf("peak of %d bytes below the resident set of %d: %v", peak, rss, err)
	}
	if kept[1] != 1 {
		t.Error("the allocation was not used")
	}
}
