package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	// dataEnd is the end of the data.
	dataEnd = dataset.Epoch
	// metaFile is the object that makes a folder a block.
	metaFile = "meta.json"
)

// layout is the bucket: a cluster that two replicas scrape, raw and downsampled, a second one with
// awkward series, a wide metric of a third, and a tenant with XOR2 chunks. size scales the number
// of series.
func layout(seed uint64, size int) dataset.Layout {
	var (
		eu = dataset.Concat(
			dataset.Service{Name: "checkout", Namespace: "shop", Pods: 8 * size, Handlers: 4,
				Native: true}.Series(seed),
			dataset.Service{Name: "ledger", Namespace: "payments", Pods: 4 * size, Handlers: 2,
				Rollout: dataEnd - 3*hour}.Series(seed),
			dataset.Nodes(seed, 6),
		)
		us = dataset.Concat(
			dataset.Service{Name: "checkout", Namespace: "shop", Pods: 4 * size, Handlers: 3,
				Rollout: dataEnd - 3*hour}.Series(seed+1),
			dataset.Nodes(seed+1, 3),
			dataset.Awkward(seed+1),
		)
		tenant = dataset.Service{Name: "device", Namespace: "iot", Pods: 3 * size, Handlers: 2,
			Native: true}.Series(seed + 2)
		wide = dataset.WholeMetric("wide", seed, 2000*size, 10*minute).Blocks[0]
		l    = dataset.Layout{Name: "chaos"}
	)
	for i, replica := range []string{"prometheus-0", "prometheus-1"} {
		b := dataset.Block{
			Labels: labels.FromStrings("cluster", "eu-west-1", "replica", replica), Series: eu,
			Scraper: uint64(i), Jitter: 40, ChunkFileSize: 2 << 20,
		}
		for from := dataEnd - 6*hour; from < dataEnd; from += 2 * hour {
			b.MinTime, b.MaxTime = from, from+2*hour
			l.Blocks = append(l.Blocks, b)
		}
		b.Interval, b.Resolution, b.Level = minute, 5*minute, 3
		b.MinTime, b.MaxTime = dataEnd-14*hour, dataEnd-2*hour
		l.Blocks = append(l.Blocks, b)
		b.Interval, b.Resolution, b.Level = 5*minute, hour, 4
		b.MinTime, b.MaxTime = dataEnd-110*hour, dataEnd-14*hour
		l.Blocks = append(l.Blocks, b)
	}
	b := dataset.Block{Labels: labels.FromStrings("cluster", "us-east-1", "replica",
		"prometheus-0"), Series: us, Scraper: 7}
	for from := dataEnd - 4*hour; from < dataEnd; from += 2 * hour {
		b.MinTime, b.MaxTime = from, from+2*hour
		l.Blocks = append(l.Blocks, b)
	}
	wide.Labels = labels.FromStrings("cluster", "ap-south-1", "replica", "prometheus-0")
	wide.MinTime, wide.MaxTime = dataEnd-2*hour, dataEnd
	b = dataset.Block{Labels: labels.FromStrings("tenant_id", "acme"), Series: tenant,
		Interval: 15_000, StartTimestamps: true}
	b.MinTime, b.MaxTime = dataEnd-2*hour, dataEnd
	l.Blocks = append(l.Blocks, wide, b)

	r := rand.New(rand.NewPCG(seed, 0x626c6f636b73))
	for i := range l.Blocks {
		l.Blocks[i].ID = newID(r, l.Blocks[i].MaxTime)
	}
	return l
}

// newID makes the ULID of a block that was uploaded at a time.
func newID(r *rand.Rand, at int64) (id ulid.ULID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	if err := id.SetTime(uint64(at)); err != nil {
		panic(err) // the time fits until the year 10889
	}
	return id
}

// bucketUnderTest is the folder whose blocks may change.
type bucketUnderTest struct {
	dir string

	mu     sync.Mutex // guards blocks
	blocks []ulid.ULID
}

// copyBucket makes a bucket of the blocks in dir. Files are hard links, because no process writes
// to them.
func copyBucket(dir, to string) (*bucketUnderTest, error) {
	b := &bucketUnderTest{dir: to}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil {
			return nil, err
		}
		from, to := filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())
		if err := linkTree(from, to); err != nil {
			return nil, err
		}
		if err := os.Link(filepath.Join(from, metaFile), filepath.Join(to, metaFile)); err != nil {
			return nil, err
		}
		b.blocks = append(b.blocks, id)
	}
	return b, nil
}

// linkTree makes a folder with hard links to the same files, meta.json excepted, which makes a
// folder a block.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(to, rel); {
		case d.IsDir():
			return os.MkdirAll(target, 0o777)
		case rel == metaFile:
			return nil
		default:
			return os.Link(path, target)
		}
	})
}

// compact replaces a block the way a compactor does that rewrites it. It uploads the replacement,
// with the sources of the old block and another ULID, meta.json last. Then it removes the old
// block, meta.json first. It returns both.
func (b *bucketUnderTest) compact(r *rand.Rand) (old, now ulid.ULID, err error) {
	b.mu.Lock()
	i := r.IntN(len(b.blocks))
	old = b.blocks[i]
	now = newID(r, int64(old.Time()))
	b.blocks[i] = now
	b.mu.Unlock()

	from, to := filepath.Join(b.dir, old.String()), filepath.Join(b.dir, now.String())
	meta, err := dataset.ReadMeta(from)
	if err != nil {
		return old, now, err
	}
	if err := linkTree(from, to); err != nil {
		return old, now, err
	}
	meta.ULID = now
	meta.Compaction.Level++
	text, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return old, now, err
	}
	// An object appears atomically. The temporary name is outside of the bucket.
	uploaded := b.dir + "-" + metaFile
	if err := os.WriteFile(uploaded, text, 0o600); err != nil {
		return old, now, err
	}
	if err := os.Rename(uploaded, filepath.Join(to, metaFile)); err != nil {
		return old, now, err
	}
	if err := os.Remove(filepath.Join(from, metaFile)); err != nil {
		return old, now, err
	}
	return old, now, os.RemoveAll(from)
}

// writeBuckets generates the bucket, and the copy that faults change.
func writeBuckets(
	ctx context.Context, dir string, seed uint64, size int,
) (reference string, tested *bucketUnderTest, series uint64, err error) {
	reference, copied := filepath.Join(dir, "reference"), filepath.Join(dir, "tested")
	metas, err := layout(seed, size).Write(ctx, reference, dataset.WriteOptions{})
	if err != nil {
		return "", nil, 0, err
	}
	for _, m := range metas {
		series += m.Stats.NumSeries
	}
	tested, err = copyBucket(reference, copied)
	if err != nil {
		return "", nil, 0, fmt.Errorf("copy of the bucket: %w", err)
	}
	slices.SortFunc(tested.blocks, ulid.ULID.Compare)
	return reference, tested, series, nil
}
