package process

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"larder/internal/loopback"
)

// Build returns binary, or builds larder into dir if binary is "".
func Build(ctx context.Context, binary, dir string) (string, error) {
	if binary != "" {
		return binary, nil
	}
	binary = filepath.Join(dir, "larder")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "larder/cmd/larder")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build larder: %w\n%s", err, text)
	}
	return binary, nil
}

// Larder is a `larder store` process, or several in succession at the same addresses. Its Child is
// nil until Run.
type Larder struct {
	*Child
	// GRPC and HTTP are its addresses, host:port.
	GRPC, HTTP string

	options Options
	binary  string
	flags   []string
}

// NewLarder reserves addresses for a larder, which Run starts with the given flags.
func NewLarder(o Options, binary string, flags ...string) (*Larder, error) {
	ports, err := loopback.Reserve(2)
	if err != nil {
		return nil, err
	}
	return &Larder{GRPC: ports[0], HTTP: ports[1], options: o, binary: binary, flags: flags}, nil
}

// Run starts the process. Call it again after the process has ended to start another one.
func (l *Larder) Run() (err error) {
	args := append([]string{"store", "--grpc-address=" + l.GRPC, "--http-address=" + l.HTTP},
		l.flags...)
	l.Child, err = Start(l.options, l.binary, args...)
	return err
}

// Ready waits until the process reports that it is ready.
func (l *Larder) Ready(ctx context.Context) error {
	return l.Wait(ctx, func(ctx context.Context) bool {
		_, err := l.Get(ctx, "/-/ready")
		return err == nil
	})
}

// getTimeout is the time limit of Get.
const getTimeout = 30 * time.Second

// Get returns the body of a page. A status other than 200 is an error. The connection is closed
// afterwards, so that it does not count among those of the process.
func (l *Larder) Get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.HTTP+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(b), err
}

// Metrics returns the counters and gauges of /metrics: each sample as name{a="b"}, and the sum of
// each family under its name alone.
func (l *Larder) Metrics(ctx context.Context) (map[string]float64, error) {
	text, err := l.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			sums[name] += v
			var ls []string
			for _, label := range m.Label {
				ls = append(ls, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			if len(ls) > 0 {
				sums[name+"{"+strings.Join(ls, ",")+"}"] += v
			}
		}
	}
	return sums, nil
}
