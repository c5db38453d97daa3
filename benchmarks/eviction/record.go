package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"larder/benchmarks/tour"
	"larder/store/storepb"
)

// workload describes what is recorded.
type workload struct {
	seed    uint64
	regions int
	visits  int
	scans   int
	// duration is the length of the recorded period in milliseconds; it ends with the data.
	duration int64
	// scanBytes is the size of the part of an archive that an export reads.
	scanBytes int64
}

// record sends all queries to the gateway and returns the traces by kind.
func (w workload) record(ctx context.Context, g *recorded) ([kinds]*trace, error) {
	var traces [kinds]*trace
	for k := range kinds {
		traces[k] = newTrace(k)
	}
	keep := func(fetches []fetch, scan bool) {
		for _, f := range fetches {
			traces[f.kind].add(f, scan)
		}
	}
	var all []dashboard
	for i := range w.regions {
		external := [][2]string{{"cluster", "eu-west-1"}, {"cluster", "us-east-1"},
			{"tenant_id", "acme"}}
		for _, ls := range external {
			ds, err := dashboards(ctx, g.Server, ls[0], region(ls[1], i))
			if err != nil {
				return traces, err
			}
			all = append(all, ds...)
		}
	}
	g.rec.take() // the fetches of the requests above
	views := visits(rand.New(rand.NewPCG(w.seed, 1)), all, w.visits, dataEnd-w.duration, dataEnd)

	// A scan is split into parts between the views that follow, because dashboards are used
	// while it runs.
	const parts = 20
	var scanning []func()
	scans := 0
	for i, v := range views {
		if err := ctx.Err(); err != nil {
			return traces, err
		}
		if next := (scans + 1) * len(views) / (w.scans + 1); i == next && scans < w.scans {
			if scans%3 == 2 {
				if err := takeTour(ctx, g); err != nil {
					return traces, err
				}
				keep(g.rec.take(), false)
			}
			fetches, err := w.scan(ctx, g, scans)
			if err != nil {
				return traces, err
			}
			number, size := scans, w.scanBytes
			for p := range parts {
				scanning = append(scanning, func() {
					keep(fetches[p*len(fetches)/parts:(p+1)*len(fetches)/parts], true)
					traces[chunkPages].archive(number, size*int64(p)/parts/pageSize*pageSize,
						size*int64(p+1)/parts/pageSize*pageSize)
				})
			}
			scans++
		}
		if len(scanning) > 0 {
			scanning[0]()
			scanning = scanning[1:]
		}
		for _, p := range all[v.dashboard].panels {
			fetches, err := g.ask(ctx, p.request(v.at-v.back, v.at))
			if err != nil {
				return traces, fmt.Errorf("%s: %w", all[v.dashboard].name, err)
			}
			keep(fetches, false)
		}
	}
	return traces, nil
}

// scan reads a whole metric of all clusters over all time.
func (w workload) scan(ctx context.Context, g *recorded, n int) ([]fetch, error) {
	names := []string{"http_request_duration_seconds_bucket", "node_cpu_seconds_total",
		"http_requests_total"}
	p := metric(names[n%len(names)])
	req := p.request(dataEnd-240*hour, dataEnd)
	req.WithoutReplicaLabels = nil
	req.Aggregates = []storepb.Aggr{storepb.Aggr_RAW}
	return g.ask(ctx, req)
}

// takeTour asks the tour's questions, each twice.
func takeTour(ctx context.Context, g *recorded) (err error) {
	conn, stop, err := g.Dial(1 << 30)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	results, err := tour.New(conn).Take(ctx, tour.Questions())
	if err != nil {
		return err
	}
	return tour.Check(results)
}
