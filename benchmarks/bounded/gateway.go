package main

import (
	"context"
	"fmt"

	"larder/benchmarks/process"
)

// start starts larder over a bucket and waits until it is ready.
func (c config) start(
	ctx context.Context, bucketConfig, data string,
) (*process.Larder, error) {
	l, err := process.NewLarder(process.Options{
		Name: "larder", Limit: c.limit, Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", c.limit/10*9)},
		OnLine: func(line string) { c.note("  %s", line) },
	}, c.binary, append([]string{"--data-dir=" + data, "--objstore.config=" + bucketConfig},
		c.flags...)...)
	if err != nil {
		return nil, err
	}
	if err := l.Run(); err != nil {
		return nil, err
	}
	if err := l.Ready(ctx); err != nil {
		l.Kill()
		return nil, err
	}
	return l, nil
}
