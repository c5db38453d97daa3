package run

import (
	"context"
	"errors"
	"fmt"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/query"
)

// sameAnswers asks both gateways, decodes the answers and compares them. It returns how large they
// are.
func sameAnswers(ctx context.Context, thanos, larder string, q *query.Query) (string, error) {
	var as [2]*answer.Answer
	for i, addr := range []string{thanos, larder} {
		c, err := gateway.Dial(addr)
		if err != nil {
			return "", err
		}
		as[i], err = answer.Ask(ctx, c, q)
		if err := errors.Join(err, c.Close()); err != nil {
			return "", err
		}
	}
	var opts answer.Options
	if q.Series != nil {
		opts.BatchSize = q.Series.ResponseBatchSize
	}
	for _, d := range answer.Diff(as[0], as[1], opts) {
		// A series that is larger than a frame comes in pieces, which are compared joined.
		if d.Field != answer.Pieces {
			return "", fmt.Errorf("the answers differ: %s", d)
		}
	}
	if as[0].Code != 0 {
		return "", fmt.Errorf("both gateways refuse: %s", as[0].Message)
	}
	if as[0].Empty() {
		return "", errors.New("the answer is empty: there is nothing to measure")
	}
	if q.Series == nil {
		return fmt.Sprintf("%d strings", len(as[0].List)), nil
	}
	chunks := 0
	for _, s := range as[0].Series {
		chunks += len(s.Chunks)
	}
	return fmt.Sprintf("%d series, %d chunks", len(as[0].Series), chunks), nil
}
