// Package server runs the servers of the comparison, each a process of its own: larder, Thanos's
// store gateway, the floor, and the bucket.
//
// Thanos and the floor are this program, started again with a command that Serve carries out.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"larder/interop/internal/compare/meter"
	"larder/interop/internal/compare/trips"
	"larder/interop/internal/gateway"
	"larder/interop/internal/process"
)

// Names of the systems.
const (
	Larder = "larder"
	Thanos = "thanos"
	Floor  = "floor"
)

// startTimeout bounds a start. Thanos takes minutes for 10,000 blocks.
const startTimeout = 10 * time.Minute

// Server is a running gateway or floor.
type Server struct {
	Name, Addr string
	Meter      meter.Process
	process    *process.Process
}

// Close ends the process.
func (s *Server) Close() error { return s.process.Close() }

// Launcher starts servers.
type Launcher struct {
	// LarderBin is the larder binary.
	LarderBin string
	// LarderFlags are added to larder's.
	LarderFlags []string
	// ThanosIndexCache is the size of Thanos's index cache in bytes; 0 is its default.
	ThanosIndexCache int64
}

// Warming is the flag that warms larder's caches after a start, as by default.
const Warming = "--warm.max-time=2m"

// Larder starts larder over a bucket. Its caches are not warmed after a start, unless more has
// Warming, and it does not look for new blocks: both would be measured as work of a query. With
// headers set it is ready once all index headers are on disk. The flags in more follow its own.
func (l Launcher) Larder(
	ctx context.Context, b gateway.Bucket, headers bool, more ...string,
) (*Server, error) {
	flags, err := b.Flags()
	if err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"store", "--grpc-address=" + addrs[0], "--http-address=" + addrs[1], "--log.level=warn",
		"--drain-delay=0s", "--sync-block-duration=24h",
	}, flags...)
	if !slices.Contains(more, Warming) {
		args = append(args, "--warm.max-time=0s")
	}
	if headers {
		args = append(args, "--wait-headers=876000h") // a century: of all blocks
	}
	args = append(append(args, more...), l.LarderFlags...)
	return start(ctx, Larder, l.LarderBin, addrs, "/-/ready", args)
}

// Thanos starts Thanos's store gateway over a bucket. It is ready once it has all index headers.
func (l Launcher) Thanos(ctx context.Context, b gateway.Bucket) (*Server, error) {
	return l.self(ctx, Thanos, serveThanos,
		"--bucket="+b.Dir, "--config="+b.Config, "--data-dir="+b.DataDir,
		"--index-cache-size="+strconv.FormatInt(l.ThanosIndexCache, 10),
	)
}

// Floor starts a server that replays the answers in dir.
func (l Launcher) Floor(ctx context.Context, dir string) (*Server, error) {
	return l.self(ctx, Floor, serveFloor, "--answers="+dir)
}

func (l Launcher) self(
	ctx context.Context, name, command string, args ...string,
) (*Server, error) {
	bin, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	args = append([]string{command, "--listen=" + addrs[0], "--http=" + addrs[1]}, args...)
	return start(ctx, name, bin, addrs, "/metrics", args)
}

func start(
	ctx context.Context, name, bin string, addrs []string, ready string, args []string,
) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := process.Start(ctx, process.Options{
		Name: name, Bin: bin, Args: args, Ready: process.HTTP("http://" + addrs[1] + ready),
	})
	if err != nil {
		return nil, err
	}
	return &Server{
		Name: name, Addr: addrs[0], process: p,
		Meter: meter.Process{PID: p.PID(), Metrics: "http://" + addrs[1] + "/metrics"},
	}, nil
}

// Latency is how far away the bucket is.
type Latency struct {
	FirstByte time.Duration
	// BytesPerSecond is the bandwidth of one request.
	BytesPerSecond int64
}

// Bucket is a running S3 server that records requests.
type Bucket struct {
	// Config is what --objstore.config takes for it.
	Config  string
	addr    string
	process *process.Process
}

// StartBucket serves a folder over S3. bin is benchmarks/bucketserver.
func StartBucket(ctx context.Context, bin, dir string, l Latency) (*Bucket, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	p, err := process.Start(ctx, process.Options{
		Name: "bucketserver", Bin: bin, Ready: process.Listening(addrs[0]), Args: []string{
			"--dir=" + dir, "--address=" + addrs[0], "--first-byte=" + l.FirstByte.String(),
			"--bytes-per-second=" + strconv.FormatInt(l.BytesPerSecond, 10),
		},
	})
	if err != nil {
		return nil, err
	}
	return &Bucket{addr: addrs[0], process: p, Config: fmt.Sprintf(
		"type: S3\nconfig:\n  bucket: blocks\n  endpoint: %s\n  region: test\n  insecure: true\n"+
			"  access_key: larder\n  secret_key: larder-secret\n", addrs[0],
	)}, nil
}

// Close ends the server.
func (b *Bucket) Close() error { return b.process.Close() }

// Requests returns the requests that ended since the last call.
func (b *Bucket) Requests(ctx context.Context) ([]trips.Request, error) {
	url := "http://" + b.addr + "/-/requests"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	var rs []trips.Request
	if err := json.NewDecoder(resp.Body).Decode(&rs); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return rs, nil
}
