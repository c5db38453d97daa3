package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"larder/benchmarks/dataset"
	"larder/benchmarks/process"
)

const (
	honestClient = "127.0.0.2"
	// watchEvery is the interval at which the memory of larder is read.
	watchEvery = 20 * time.Millisecond
	// blockSeries is the number of series in the honest block.
	blockSeries = 2000
)

// attacker returns the n-th address of attackers.
func attacker(n int) string { return fmt.Sprintf("127.0.0.%d", 66+n%100) }

// target is a larder under attack, with its files.
type target struct {
	conf   config
	dir    string
	bucket string   // folder
	block  string   // the honest one
	flags  []string // in addition to those of start
	umask  string
	// Files of the honest client's TLS; "" is plain text.
	ca, cert, key string

	larder  *process.Larder // nil before start
	peak    atomic.Int64
	watched sync.WaitGroup

	mu       sync.Mutex // guards findings
	findings []string
}

// got records that the attack got through.
func (t *target) got(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.findings = append(t.findings, fmt.Sprintf(format, args...))
}

// n selects a count by the length of the run.
func (t *target) n(full, short int) int {
	if t.conf.short {
		return short
	}
	return full
}

// makeBucket writes a bucket with one block.
func (t *target) makeBucket(ctx context.Context) error {
	t.bucket = filepath.Join(t.dir, "bucket")
	layout := dataset.WholeMetric("attack", t.conf.seed, blockSeries,
		(10 * time.Minute).Milliseconds())
	metas, err := layout.Write(ctx, t.bucket, dataset.WriteOptions{})
	if err == nil {
		t.block = metas[0].ULID.String()
	}
	return err
}

func (t *target) dataDir() string { return filepath.Join(t.dir, "data") }

// bucketFlag returns the flag that configures the bucket.
func (t *target) bucketFlag() string {
	return "--objstore.config={type: FILESYSTEM, config: {directory: " + t.bucket + "}}"
}

// start starts larder, watches its memory and waits until it is ready.
func (t *target) start(ctx context.Context) error {
	flags := append([]string{"--data-dir=" + t.dataDir(), t.bucketFlag(), "--drain-delay=0s"},
		t.flags...)
	l, err := process.NewLarder(process.Options{
		Name: "larder", Limit: t.conf.limit, Umask: t.umask,
		Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", t.conf.limit)},
		OnLine: func(line string) {
			if t.conf.verbose {
				fmt.Fprintln(os.Stderr, "  "+line)
			}
		},
	}, t.conf.binary, flags...)
	if err != nil {
		return err
	}
	if err := l.Run(); err != nil {
		return err
	}
	t.larder = l
	t.watched.Go(t.watch)
	return l.Ready(ctx)
}

// watch records the peak memory of larder, until it ends.
func (t *target) watch() {
	for tick := time.NewTicker(watchEvery); ; {
		if u, err := t.larder.Usage(); err == nil {
			t.peak.Store(max(t.peak.Load(), u.Peak))
		}
		select {
		case <-t.larder.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// stop ends larder.
func (t *target) stop() {
	t.larder.Kill()
	t.watched.Wait()
}

// dialer dials from an address of its own.
func dialer(from string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
}

// maxBody is the maximum number of bytes read of an HTTP answer.
const maxBody = 256 << 20

// do sends an HTTP request from an address, on a connection of its own.
func (t *target) do(from string, req *http.Request) (int, http.Header, string, error) {
	client := http.Client{
		Transport: &http.Transport{DialContext: dialer(from).DialContext,
			DisableKeepAlives: true},
		CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		},
		Timeout: 30 * time.Second,
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, resp.Header, string(b), err
}

// get sends an HTTP GET for a path, with headers.
func (t *target) get(ctx context.Context, from, path string, header http.Header) (int, http.Header,
	string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.larder.HTTP+path, nil)
	if err != nil {
		return 0, nil, "", err
	}
	if header != nil {
		req.Header = header
	}
	return t.do(from, req)
}
