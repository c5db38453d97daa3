package neighbour

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// RemoteWrite sends series to a remote-write receiver of Prometheus or Thanos. The samples of a
// series must be in order of time.
func RemoteWrite(
	ctx context.Context, url string, header http.Header, series []prompb.TimeSeries,
) error {
	req := prompb.WriteRequest{Timeseries: series}
	raw, err := req.Marshal()
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(
		ctx, http.MethodPost, url, bytes.NewReader(snappy.Encode(nil, raw)),
	)
	if err != nil {
		return err
	}
	for name, values := range header {
		post.Header[name] = values
	}
	post.Header.Set("Content-Type", "application/x-protobuf")
	post.Header.Set("Content-Encoding", "snappy")
	post.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := http.DefaultClient.Do(post)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s: %s", url, resp.Status, said)
	}
	return nil
}
