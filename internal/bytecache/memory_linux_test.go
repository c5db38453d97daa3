package bytecache

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// burstChild is the environment variable that makes the test binary the child process of
// TestBurstStaysInMemory. Its value is the kind of cache to fill.
const burstChild = "LARDER_TEST_BURST"

const (
	burstBytes  = 256 << 20
	burstValues = 100_000
	// burstPart is the number of values, some 20 MiB, set between two garbage collections.
	burstPart = 2_500
)

// TestBurstStaysInMemory fills a cache in a child process, from several goroutines at once, with
// several times its size. With GOMEMLIMIT slightly above the size of the cache, the resident memory
// stays below 1.3 times that size.
//
// Go's collector misses its limit if other processes use the processors. Therefore the burst comes
// in parts with a collection after each: the resident memory then shows what the cache retains,
// whatever else the machine does.
func TestBurstStaysInMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory is in the way")
	}
	f := func(kind string) {
		t.Helper()
		peak := burst(t, kind)
		t.Logf("%s: %d MiB resident at most, %.2f of the size", kind, peak>>20,
			float64(peak)/burstBytes)
		if peak > burstBytes*13/10 {
			t.Errorf("%s: %d bytes were resident for a cache of %d", kind, peak, burstBytes)
		}
	}
	f("pages")
	f("values")
}

// burst runs the child process and returns the peak of its resident memory in bytes.
func burst(t *testing.T, kind string) (peak int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBurstChild$", "-test.v")
	cmd.Env = append(os.Environ(), burstChild+"="+kind,
		fmt.Sprintf("GOMEMLIMIT=%d", burstBytes*115/100))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", kind, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscanf(rest, "%d kB", &peak); err != nil {
				t.Fatal(err)
			}
		}
	}
	if peak == 0 {
		t.Fatalf("%s: no VmHWM in\n%s", kind, out)
	}
	return peak << 10
}

// TestBurstChild is the child process; without the variable it does nothing.
func TestBurstChild(t *testing.T) {
	kind := os.Getenv(burstChild)
	if kind == "" {
		return
	}
	var set, get func(key uint64)
	switch kind {
	case "pages":
		m := newBytes(Options{MaxBytes: burstBytes})
		defer m.Close()
		set = func(key uint64) { m.Set(key, resident(make([]byte, 8<<10))) }
		get = func(key uint64) { m.Get(key) }
	case "values":
		m := newParts(burstBytes)
		defer m.Close()
		set, get = func(key uint64) {
			p := newPart(key)
			resident(p.labels)
			resident(p.refs)
			m.Set(key, p, p.bytes())
		}, func(key uint64) { m.Get(key) }
	}
	const (
		setters = 8
		// later is the number of Sets after which a value is looked up: before it leaves the queue.
		later = 100 * setters
	)
	for part := uint64(0); part < burstValues; part += burstPart {
		var wg sync.WaitGroup
		for s := range uint64(setters) {
			wg.Go(func() {
				for key := part + s; key < part+burstPart; key += setters {
					set(key)
					if key/setters%2 == 0 && key >= later {
						get(key - later)
					}
				}
			})
		}
		wg.Wait()
		runtime.GC()
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print("\n", line)
		}
	}
}

// resident writes to memory, so that the system really provides it.
func resident[T byte | uint64](s []T) []T {
	for i := 0; i < len(s); i += 256 {
		s[i] = 1
	}
	return s
}
