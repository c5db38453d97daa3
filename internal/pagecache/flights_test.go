package pagecache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// flightScript runs requests against a bucket whose bodies are fed by hand. Pages have 1 KiB, and
// the object is "o". After each command all goroutines run until they wait. The events are printed.
type flightScript struct {
	t       *testing.T
	bucket  *testBucket
	cache   *mapCache
	r       *Reader
	cancels map[string]context.CancelFunc

	// bodies is guarded by bucket.mu.
	bodies map[string]*body // of the latest read of each range
	events []string
}

// TestFlights runs the scripts of testdata/flights:
//
//	new [size=<bytes>] [max=<bytes>] [amp=<x>] [nocache]
//	fetch <request> spans=(<off>,<end>,...)   refetch likewise
//	send <read> [bytes=<n>]                    a read is named by its range
//	end <read>                                 the body ends
//	fail <read>                                the body breaks
//	gone <read>                                the body says that there is no object
//	cancel <request>
//	sleep <duration>
func TestFlights(t *testing.T) {
	paths, err := filepath.Glob("testdata/flights/*")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &flightScript{t: t}
				datadriven.RunTest(t, path, s.run)
				s.close()
			})
		})
	}
}

func (s *flightScript) close() {
	if s.r != nil {
		s.r.Close()
		synctest.Wait()
		s.bucket.checkClosed(s.t)
	}
}

func (s *flightScript) event(format string, args ...any) {
	s.bucket.mu.Lock()
	defer s.bucket.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *flightScript) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "new":
		s.close()
		s.open(d)
		return ""
	case "fetch", "refetch":
		s.fetch(d)
	case "cancel":
		s.cancels[d.CmdArgs[0].Key]()
	case "sleep":
		dur, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(dur)
	default:
		s.feed(d)
	}
	synctest.Wait()
	return s.report()
}

func (s *flightScript) open(d *datadriven.TestData) {
	size, maxRead, gap, reads := 16<<10, int64(0), int64(-1), 0
	d.MaybeScanArgs(s.t, "size", &size)
	d.MaybeScanArgs(s.t, "max", &maxRead)
	d.MaybeScanArgs(s.t, "gap", &gap)
	d.MaybeScanArgs(s.t, "slots", &reads)
	s.bucket = newTestBucket(map[string]int{"o": size})
	s.bodies, s.cancels, s.events = map[string]*body{}, map[string]context.CancelFunc{}, nil
	s.bucket.hook = func(
		ctx context.Context, _ string, off, length int64,
	) (io.ReadCloser, error, bool) {
		b := newBody(ctx)
		b.off = off
		read := fmt.Sprintf("%d-%d", off, off+length)
		s.bucket.mu.Lock()
		s.bodies[read] = b
		s.events = append(s.events, fmt.Sprintf("read %s: starts", read))
		s.bucket.mu.Unlock()
		context.AfterFunc(ctx, func() { s.event("read %s: context ended", read) })
		return b, nil, true
	}
	var cache Cache = bytecache.None{}
	if !d.HasArg("nocache") {
		s.cache = newMapCache()
		cache = s.cache
	}
	costs := cost.Fixed(cost.Model{MaxRead: maxRead, MaxGap: gap})
	s.r = New(s.bucket, cache, Options{
		PageSize: 1 << 10, Costs: costs, Limiter: slots.New(slots.Options{Max: reads}),
	})
}

func (s *flightScript) fetch(d *datadriven.TestData) {
	name := d.CmdArgs[0].Key
	arg, _ := d.Arg("spans")
	var spans []Span
	for i := 0; i < len(arg.Vals); i += 2 {
		var span Span
		if _, err := fmt.Sscan(arg.Vals[i], &span.Off); err != nil {
			s.t.Fatal(err)
		}
		if _, err := fmt.Sscan(arg.Vals[i+1], &span.End); err != nil {
			s.t.Fatal(err)
		}
		spans = append(spans, span)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancels[name] = cancel
	data := s.bucket.objects["o"]
	obj := Object{Name: "o", Size: int64(len(data)), ID: 7}
	r := s.r
	go func() {
		var acct Account
		var pages *Pages
		var err error
		if d.Cmd == "fetch" {
			pages, err = r.Fetch(ctx, obj, spans, &acct)
		} else {
			pages, err = r.Refetch(ctx, obj, spans[0], &acct)
		}
		outcome := "ok"
		if err != nil {
			outcome = err.Error()
		}
		for _, span := range spans {
			if err != nil {
				break
			}
			got, _, ok := pages.Bytes(span.Off, int(span.End-span.Off), nil)
			if !ok || !bytes.Equal(got, data[span.Off:span.End]) {
				outcome = fmt.Sprintf("wrong bytes at [%d,%d)", span.Off, span.End)
			}
		}
		s.event(
			"%s: %s (touched %d, hits %d, coalesced %d, fetched %d in %d)", name, outcome,
			acct.Touched.Load(), acct.Hits.Load(), acct.Coalesced.Load(), acct.Fetched.Load(),
			acct.Requests.Load(),
		)
	}()
}

// feed acts on a read's body.
func (s *flightScript) feed(d *datadriven.TestData) {
	s.bucket.mu.Lock()
	b := s.bodies[d.CmdArgs[0].Key]
	s.bucket.mu.Unlock()
	if b == nil {
		d.Fatalf(s.t, "no read of %s", d.CmdArgs[0].Key)
	}
	switch d.Cmd {
	case "send":
		var count int64
		d.ScanArgs(s.t, "bytes", &count)
		b.feed <- s.bucket.objects["o"][b.off : b.off+count]
		b.off += count
	case "end":
		close(b.feed)
	case "fail":
		b.fail <- errBroken
	case "gone":
		b.fail <- errGone{}
	default:
		s.t.Fatalf("unknown command %q", d.Cmd)
	}
}

// report returns the events since the last report. Goroutines of one command
// run in any order, so they are sorted.
func (s *flightScript) report() string {
	s.bucket.mu.Lock()
	defer s.bucket.mu.Unlock()
	events := s.events
	s.events = nil
	slices.Sort(events)
	return strings.Join(events, "\n")
}
