package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"larder/benchmarks/process"
	"larder/internal/loopback"
)

// gateway is the larder under test.
type gateway struct {
	*process.Child
	grpc string // addresses
	http string
}

// start starts larder over a bucket and waits until it is ready.
func (c config) start(ctx context.Context, bucketConfig, data string) (*gateway, error) {
	ports, err := loopback.Reserve(2)
	if err != nil {
		return nil, err
	}
	p := &gateway{grpc: ports[0], http: ports[1]}
	args := append([]string{"store", "--http-address=" + p.http, "--grpc-address=" + p.grpc,
		"--data-dir=" + data, "--objstore.config=" + bucketConfig}, c.flags...)
	p.Child, err = process.Start(process.Options{
		Name: "larder", Limit: c.limit, Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", c.limit/10*9)},
		OnLine: func(line string) { c.note("  %s", line) },
	}, c.binary, args...)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx, p.ready); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// ready reports whether larder is ready.
func (p *gateway) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/-/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// metrics returns the samples of /metrics by name and labels, in the form of that page.
func (p *gateway) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 && lines.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(lines.Text()[i+1:], 64); err == nil {
				out[lines.Text()[:i]] = v
			}
		}
	}
	return out, lines.Err()
}
