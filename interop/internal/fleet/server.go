package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
)

// Server is a running Prometheus server that accepts samples of any time by remote write.
type Server struct {
	*process.Process
	*neighbour.Client
	base, data string
}

// StartServer runs the prometheus program with its data in dir.
func StartServer(ctx context.Context, bin, dir string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(conf, []byte("global: {}\n"), 0o644); err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	s := &Server{base: "http://" + addrs[0], data: filepath.Join(dir, "data")}
	s.Client = neighbour.NewClient(s.base)
	s.Process, err = process.Start(ctx, process.Options{
		Name: "prometheus", Bin: bin, Ready: process.HTTP(s.base + "/-/ready"),
		Args: []string{
			"--config.file=" + conf, "--storage.tsdb.path=" + s.data,
			"--storage.tsdb.retention.time=100y", "--web.listen-address=" + addrs[0],
			"--web.enable-remote-write-receiver", "--web.enable-admin-api",
			"--enable-feature=native-histograms", "--log.level=warn",
		},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Write sends all samples of p's series in order of time, except those for which skip is true. The
// server cuts a block whenever its head spans three hours.
func (s *Server) Write(ctx context.Context, p *Prometheus, skip func(labels.Labels) bool) error {
	const window = 10 * 60 * 1000
	end := p.blocks[len(p.blocks)-1].Meta().MaxTime
	for from := p.blocks[0].Meta().MinTime; from < end; from += window {
		req, err := p.writeRequest(ctx, from, min(from+window, end)-1, skip)
		if err != nil {
			return err
		}
		raw, err := req.Marshal()
		if err != nil {
			return err
		}
		if err := s.post(ctx, "/api/v1/write", snappy.Encode(nil, raw), nil); err != nil {
			return err
		}
	}
	return nil
}

func (p *Prometheus) writeRequest(
	ctx context.Context, mint, maxt int64, skip func(labels.Labels) bool,
) (*prompb.WriteRequest, error) {
	q, err := p.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	set := q.Select(
		ctx, true, nil, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+"),
	)
	var it chunkenc.Iterator
	req := &prompb.WriteRequest{}
	for set.Next() {
		x := set.At()
		if skip(x.Labels()) {
			continue
		}
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(x.Labels(), nil)}
		it = x.Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			switch vt {
			case chunkenc.ValHistogram:
				t, h := it.AtHistogram(nil)
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(t, h))
			case chunkenc.ValFloatHistogram:
				t, fh := it.AtFloatHistogram(nil)
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(t, fh))
			default:
				t, v := it.At()
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t, Value: v})
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		if len(ts.Samples)+len(ts.Histograms) > 0 {
			req.Timeseries = append(req.Timeseries, ts)
		}
	}
	return req, set.Err()
}

// Snapshot waits until the server has cut the given number of blocks, copies them, and returns
// their folder. The copy does not contain the server's head, because Prometheus 2.42 fails to write
// an open chunk of a histogram that was reset.
func (s *Server) Snapshot(ctx context.Context, blocks int) (string, error) {
	var found []string
	err := s.Wait(ctx, func(context.Context) bool {
		var err error
		found, err = filepath.Glob(filepath.Join(s.data, "*", "meta.json"))
		return err == nil && len(found) >= blocks
	})
	if err != nil {
		return "", fmt.Errorf("%d blocks instead of %d: %w", len(found), blocks, err)
	}
	var answer struct {
		Data struct {
			Name string `json:"name"`
		} `json:"data"`
	}
	if err := s.post(ctx, "/api/v1/admin/tsdb/snapshot?skip_head=true", nil, &answer); err != nil {
		return "", err
	}
	return filepath.Join(s.data, "snapshots", answer.Data.Name), nil
}

func (s *Server) post(ctx context.Context, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: status %d: %s", path, resp.StatusCode, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}
