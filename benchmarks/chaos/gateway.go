package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"larder/benchmarks/process"
)

// gateway is a larder process, or several in succession at the same addresses.
type gateway struct {
	*process.Larder
	name string
	endpoint
}

// newGateway starts larder and waits until it is ready.
func newGateway(ctx context.Context, name, bin string, flags ...string) (*gateway, error) {
	l, err := process.NewLarder(process.Options{Name: name}, bin, flags...)
	if err != nil {
		return nil, err
	}
	conn, err := dial(l.GRPC)
	if err != nil {
		return nil, err
	}
	g := &gateway{Larder: l, name: name, endpoint: newEndpoint(conn)}
	if err := g.start(ctx); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// dial makes a connection that reconnects soon after the server has started.
func dial(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5,
				Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
	}, opts...)...)
}

// start starts the process and waits until it is ready.
func (g *gateway) start(ctx context.Context) error {
	if err := g.Run(); err != nil {
		return err
	}
	return g.Ready(ctx)
}

// endTime is the time that a process has to end after SIGTERM.
const endTime = time.Minute

// stop ends the process the way an orchestrator does, and returns how it ended.
func (g *gateway) stop() error {
	g.Signal(syscall.SIGTERM)
	select {
	case <-g.Done():
		if g.Err() != nil {
			return fmt.Errorf("%s, after SIGTERM: %w\n%s", g.name, g.Err(), g.Tail())
		}
		return nil
	case <-time.After(endTime):
		g.Kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM\n%s", g.name, endTime, g.Tail())
	}
}

func (g *gateway) close() {
	if g.Child != nil {
		g.Kill()
	}
	_ = g.conn.Close() // all writes are done
}

// left is what an idle process holds.
type left struct {
	goroutines int
	stacks     string // where they are
	files      int    // open file handles
	sockets    int
	temp       int     // temporary files in the data directory
	inUse      float64 // bytes of the request allowance in use, and waited for
	waiting    float64
	heap       float64 // bytes in use after a garbage collection
	rss        float64 // bytes
	panics     float64
}

// count returns what the process holds now.
func (g *gateway) count(ctx context.Context, dataDir string) (l left, err error) {
	// The profile collects garbage first, twice because of finalizers.
	for range 2 {
		if _, err := g.Get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return l, err
		}
	}
	m, err := g.Metrics(ctx)
	if err != nil {
		return l, err
	}
	for name, to := range map[string]*float64{
		"go_memstats_heap_inuse_bytes":                    &l.heap,
		"process_resident_memory_bytes":                   &l.rss,
		`larder_request_allowance_bytes{state="in_use"}`:  &l.inUse,
		`larder_request_allowance_bytes{state="waiting"}`: &l.waiting,
		"larder_panics_total":                             &l.panics,
	} {
		var ok bool
		if *to, ok = m[name]; !ok {
			return l, fmt.Errorf("larder exports no %s", name)
		}
	}
	profile, err := g.Get(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return l, err
	}
	l.goroutines, l.stacks = goroutines(profile)
	if l.files, l.sockets, err = handles(g.Pid()); err != nil {
		return l, err
	}
	l.temp, err = temporaryFiles(dataDir)
	return l, err
}

// goroutines counts the goroutines of a profile in text form, and returns where they are.
func goroutines(profile string) (n int, stacks string) {
	var text strings.Builder
	for _, group := range strings.Split(profile, "\n\n") {
		if strings.HasPrefix(group, "goroutine profile:") {
			_, group, _ = strings.Cut(group, "\n")
		}
		var here int
		if _, err := fmt.Sscanf(group, "%d @", &here); err != nil {
			continue
		}
		n += here
		for i, line := range strings.Split(group, "\n") {
			if f := strings.Fields(line); i == 0 ||
				len(f) > 2 && strings.HasPrefix(f[2], "larder/") {
				fmt.Fprintln(&text, strings.Join(f[:min(len(f), 3)], " "))
			}
		}
	}
	return n, text.String()
}

// handles counts the open files and sockets of a process. It does not count the files of the disk
// cache, which are as many as its size allows.
func handles(pid int) (files, sockets int, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil: // closed meanwhile
		case strings.HasSuffix(target, segmentSuffix):
		case strings.HasPrefix(target, "socket:"):
			sockets++
		case strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/dev/"):
			files++
		}
	}
	return files, sockets, nil
}

// temporaryFiles counts the files left by incomplete writes.
func temporaryFiles(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".tmp") {
			n++
		}
		if os.IsNotExist(err) {
			return nil // removed meanwhile
		}
		return err
	})
	return n, err
}
