package dataset

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Demo is a small bucket that contains everything that occurs in Thanos buckets. The data ends at
// end, rounded down to two hours.
//
//   - A cluster scraped by two Prometheus replicas: a day of raw blocks, and blocks at 5 minutes
//     and 1 hour that reach back ten days. The second replica was down for eight hours. One source
//     of a compacted block is not deleted yet.
//   - A second cluster with one replica, a backfilled block that overlaps the others, a rollout,
//     and all kinds of awkward series.
//   - A tenant of a receiver, with blocks with start timestamps (XOR2) and a gap of two hours
//     between them.
func Demo(seed uint64, end time.Time) Layout {
	e := end.UnixMilli()
	e -= e % (2 * hour)

	var (
		eu = Concat(
			Service{Name: "checkout", Namespace: "shop", Pods: 6, Handlers: 3,
				Native: true}.Series(seed),
			Service{Name: "catalog", Namespace: "shop", Pods: 4, Handlers: 4}.Series(seed),
			Service{Name: "ledger", Namespace: "payments", Pods: 3, Handlers: 2, Native: true,
				Rollout: e - 5*hour}.Series(seed),
			Nodes(seed, 6),
		)
		us = Concat(
			Service{Name: "checkout", Namespace: "shop", Pods: 4, Handlers: 3,
				Rollout: e - 12*hour}.Series(seed+1),
			Nodes(seed+1, 3),
			Awkward(seed+1),
		)
		backfill = Concat(Service{Name: "forecast", Namespace: "batch", Pods: 2,
			Handlers: 1}.Series(seed+1), Nodes(seed+1, 1))
		tenant = Service{Name: "device", Namespace: "iot", Pods: 5, Handlers: 2,
			Native: true}.Series(seed + 2)
		blocks []Block
		add    = func(b Block) { blocks = append(blocks, b) }
	)

	for i, replica := range []string{"prometheus-0", "prometheus-1"} {
		b := Block{
			Labels: labels.FromStrings("cluster", "eu-west-1", "replica", replica), Series: eu,
			Scraper: uint64(i), Jitter: 40, ChunkFileSize: 2 << 20,
		}
		for from := e - 26*hour; from < e-2*hour; from += 8 * hour {
			if i == 1 && from == e-18*hour {
				continue // the second replica was down
			}
			b.MinTime, b.MaxTime, b.Level = from, from+8*hour, 2
			add(b)
		}
		b.MinTime, b.MaxTime, b.Level = e-2*hour, e, 1
		add(b)

		b.Interval, b.Resolution, b.Level = minute, 5*minute, 3
		b.MinTime, b.MaxTime = e-74*hour, e-26*hour
		add(b)
		b.MinTime, b.MaxTime = e-26*hour, e-2*hour
		add(b)
		b.Interval, b.Resolution, b.Level = 5*minute, hour, 4
		b.MinTime, b.MaxTime = e-240*hour, e-26*hour
		add(b)
	}

	b := Block{
		Labels: labels.FromStrings("cluster", "us-east-1", "replica", "prometheus-0"), Series: us,
		Scraper: 7, Level: 2,
	}
	for from := e - 26*hour; from < e-2*hour; from += 8 * hour {
		b.MinTime, b.MaxTime = from, from+8*hour
		add(b)
	}
	b.Series, b.MinTime, b.MaxTime, b.Level = backfill, e-13*hour, e-9*hour, 1
	add(b)

	b = Block{Labels: labels.FromStrings("tenant_id", "acme"), Series: tenant,
		Interval: 15 * second, StartTimestamps: true}
	b.MinTime, b.MaxTime = e-6*hour, e-4*hour
	add(b)
	b.MinTime, b.MaxTime = e-2*hour, e
	add(b)

	blocks = withIDs(seed, blocks)
	// A leftover source of the first compacted block that ends at e-2h.
	for i := range blocks {
		if parent := &blocks[i]; parent.Resolution == 0 && parent.MaxTime == e-2*hour &&
			parent.Level == 2 {
			left := *parent
			left.ID, left.Level, left.Sources = blockID(seed, len(blocks), e-8*hour), 1, nil
			left.MaxTime = left.MinTime + 2*hour
			parent.Sources = []ulid.ULID{left.ID, blockID(seed, len(blocks)+1, e-6*hour),
				blockID(seed, len(blocks)+2, e-4*hour)}
			blocks = append(blocks, left)
			break
		}
	}
	return Layout{Name: "demo", Blocks: blocks}
}
