package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/thanos-io/thanos/pkg/store/storepb"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"larder/interop/internal/gateway"
)

// subject is a gateway that is measured.
type subject struct {
	name   string
	addr   string
	pid    int
	rounds []round
	client *gateway.Client
}

// counted is a message that is not decoded.
type counted struct{ bytes int64 }

// countingCodec encodes requests as usual and only counts what comes back, so that the client's
// work does not hide the server's.
type countingCodec struct{ encoding.CodecV2 }

func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*counted)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	m.bytes = int64(data.Len())
	return nil
}

var seriesStream = &grpc.StreamDesc{StreamName: "Series", ServerStreams: true}

// ask sends the request and measures what it costs the server.
func (s *subject) ask(ctx context.Context, req *storepb.SeriesRequest) (round, error) {
	var r round
	if s.client == nil {
		c, err := gateway.Dial(
			s.addr,
			grpc.WithDefaultCallOptions(
				grpc.ForceCodecV2(countingCodec{encoding.GetCodecV2("proto")}),
			),
		)
		if err != nil {
			return r, err
		}
		s.client = c
	}
	if err := resetPeak(s.pid); err != nil {
		return r, err
	}
	before, err := quiet(s.pid)
	if err != nil {
		return r, err
	}
	begin := time.Now()
	stream, err := s.client.Conn().NewStream(ctx, seriesStream, "/thanos.Store/Series")
	if err != nil {
		return r, err
	}
	if err := stream.SendMsg(req); err != nil {
		return r, err
	}
	if err := stream.CloseSend(); err != nil {
		return r, err
	}
	for {
		var m counted
		err := stream.RecvMsg(&m)
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		if r.frames == 0 {
			r.first = time.Since(begin)
		}
		r.frames++
		r.bytes += m.bytes
	}
	r.wall = time.Since(begin)
	// Collecting what the request left behind is part of its price.
	after, err := quiet(s.pid)
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	r.peak, err = peakRSS(s.pid)
	return r, err
}

// cpuTime is the CPU time that all threads of a process used, ended ones too, to the nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	// The kernel's id of another process's CPU clock: see clock_getcpuclockid(3).
	clock := int32(^pid)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// quiet waits until the process does next to nothing and returns its CPU time.
func quiet(pid int) (time.Duration, error) {
	last, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	for range 100 {
		time.Sleep(25 * time.Millisecond)
		now, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		if now-last < time.Millisecond {
			return now, nil
		}
		last = now
	}
	return last, nil
}

func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

func peakRSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kb int64
			_, err := fmt.Sscan(rest, &kb)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no VmHWM in its status", pid)
}

// report prints medians and their ratio.
func report(w io.Writer, thanos, larder *subject) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "median of rounds\tthanos\tlarder\tlarder/thanos\t")
	row := func(name string, scale float64, format string, get func(round) float64) {
		t, l := median(thanos.rounds, get), median(larder.rounds, get)
		fmt.Fprintf(tw, "%s\t"+format+"\t"+format+"\t%.2f\t\n", name, t*scale, l*scale, l/t)
	}
	row("server CPU, s", 1, "%.3f", func(r round) float64 { return r.cpu.Seconds() })
	row("wall time, s", 1, "%.3f", func(r round) float64 { return r.wall.Seconds() })
	row("first frame, ms", 1e3, "%.1f", func(r round) float64 { return r.first.Seconds() })
	row("bytes", 1, "%.0f", func(r round) float64 { return float64(r.bytes) })
	row("frames", 1, "%.0f", func(r round) float64 { return float64(r.frames) })
	row("peak RSS, MiB", 1.0/(1<<20), "%.0f", func(r round) float64 { return float64(r.peak) })
	tw.Flush()
}

func median(rs []round, get func(round) float64) float64 {
	xs := make([]float64, len(rs))
	for i, r := range rs {
		xs[i] = get(r)
	}
	slices.Sort(xs)
	return xs[len(xs)/2]
}
