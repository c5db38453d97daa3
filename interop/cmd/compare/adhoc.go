package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/workload"
	"larder/interop/internal/query"
)

// adHoc is a query of the user's own bucket.
type adHoc struct {
	bucket, without string
	req             storepb.SeriesRequest
}

func (a *adHoc) flags(fs *flag.FlagSet) {
	fs.StringVar(
		&a.bucket, "bucket", "",
		"folder that is a bucket; asks it for the selector that follows the flags",
	)
	fs.Int64Var(&a.req.MinTime, "min-time", math.MinInt64, "with --bucket: first millisecond")
	fs.Int64Var(&a.req.MaxTime, "max-time", math.MaxInt64, "with --bucket: last millisecond")
	fs.Int64Var(
		&a.req.ResponseBatchSize, "response-batch-size", 64, "with --bucket: series in a frame",
	)
	fs.Int64Var(
		&a.req.MaxResolutionWindow, "max-resolution-window", 0, "with --bucket: milliseconds",
	)
	fs.BoolVar(&a.req.SkipChunks, "skip-chunks", false, "with --bucket: ask for labels only")
	fs.StringVar(
		&a.without, "without-replica-labels", "",
		"with --bucket: labels to remove, separated by commas",
	)
}

// parse returns the query; nil if there is none.
func (a *adHoc) parse(args []string) (*run.Given, error) {
	switch {
	case a.bucket == "" && len(args) == 0:
		return nil, nil
	case a.bucket == "":
		return nil, fmt.Errorf("unexpected argument %q: a selector needs --bucket", args[0])
	case len(args) != 1:
		return nil, errors.New("--bucket: one selector must follow the flags")
	}
	ms, err := parser.ParseMetricSelector(args[0])
	if err != nil {
		return nil, fmt.Errorf("selector %q: %w", args[0], err)
	}
	if a.req.Matchers, err = storepb.PromMatchersToMatchers(ms...); err != nil {
		return nil, err
	}
	a.req.Aggregates = []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM}
	a.req.WithoutReplicaLabels = split(a.without)
	dir, err := filepath.Abs(a.bucket)
	return &run.Given{Dir: dir, Query: workload.Query{
		Name: "given", Concurrent: true, ConcurrentS3: true, Ask: query.Query{Series: &a.req},
	}}, err
}
