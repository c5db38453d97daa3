package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// peakRSS returns the most memory that the process had resident, in bytes.
func (p *process) peakRSS() int64 {
	p.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			var kb int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kb); err != nil {
				p.t.Fatal(err)
			}
			return kb << 10
		}
	}
	p.t.Fatal("no VmHWM")
	return 0
}

// TestRequestsStayInTheirAllowance asks 16 times at once for all of a block of 50,000 series, 39 MB
// each, with 128 MiB for all requests together. All must be answered in full, and the whole process
// must stay within its caches, the allowance and a quarter more.
func TestRequestsStayInTheirAllowance(t *testing.T) {
	const (
		mib       = 1 << 20
		index     = 32 * mib
		chunks    = 96 * mib
		allowance = 128 * mib
	)
	dir := t.TempDir()
	if _, err := dataset.Bench50k(1).Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p := startProcess(
		t, folder(dir), "--store.request-bytes=128MB", "--index-cache-size=32MB",
		"--chunk-cache-size=96MB", "--store.grpc.series-max-concurrency=16",
	)
	p.await("readiness changed.*ready=true")

	var g errgroup.Group
	for range 16 {
		g.Go(func() error {
			stream, err := storepb.NewStoreClient(p.rpc).Series(t.Context(), &storepb.SeriesRequest{
				MinTime: math.MinInt64, MaxTime: math.MaxInt64, ResponseBatchSize: 64,
				Matchers: []*storepb.LabelMatcher{
					{Name: "__name__", Value: dataset.WholeMetricName},
				},
			})
			if err != nil {
				return err
			}
			series, chunkCount := 0, 0
			for {
				resp, err := stream.Recv()
				if err == io.EOF {
					break
				}
				if err != nil {
					return fmt.Errorf("after %d series: %w", series, err)
				}
				for _, s := range resp.GetBatch().GetSeries() {
					series++
					chunkCount += len(s.Chunks)
				}
			}
			if series != 50_000 || chunkCount != 100_000 {
				return fmt.Errorf(
					"%d series and %d chunks, want 50000 and 100000", series, chunkCount,
				)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	peak, most := p.peakRSS(), int64(index+chunks+allowance)*5/4
	t.Logf("peak RSS %d MiB, at most %d MiB", peak/mib, most/mib)
	if peak > most {
		t.Errorf("peak RSS %d MiB, want at most %d MiB", peak/mib, most/mib)
	}
}
