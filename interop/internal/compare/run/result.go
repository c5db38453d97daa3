package run

import (
	"time"

	"larder/interop/internal/compare/price"
	"larder/interop/internal/compare/stats"
	"larder/interop/internal/compare/trips"
)

// Modes: where the bucket is, and what the caches hold.
const (
	// FS is a bucket in a folder, with warm caches.
	FS = "fs"
	// S3Cold is a bucket behind S3; every call is the first after a restart with the index headers
	// on disk.
	S3Cold = "s3-cold"
	// S3Warm is a bucket behind S3; the same was asked before.
	S3Warm = "s3-warm"
	// S3Disk is a bucket behind S3 and a disk cache that has all indexes and no chunks; every call
	// is the first after a restart.
	S3Disk = "s3-disk"
)

// Modes are all of them.
func Modes() []string { return []string{FS, S3Cold, S3Warm, S3Disk} }

// cold reports whether every call of a mode is the first after a restart.
func cold(mode string) bool { return mode == S3Cold || mode == S3Disk }

// Results are those of one run of the comparison.
type Results struct {
	// Started is when it began, Took how long it lasted.
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	// Machine describes where it ran.
	Machine string `json:"machine"`
	// Others is the part of the machine's CPU time that other processes used meanwhile, from 0 to
	// 1. It disturbs the times. Quotients suffer less, because the systems have their turns in
	// between.
	Others float64 `json:"others"`
	Larder string  `json:"larder"`
	Rounds int     `json:"rounds"`
	Short  bool    `json:"short"`
	// FirstByte and BytesPerSecond are those of the bucket behind S3.
	FirstByte      time.Duration `json:"first_byte_ns"`
	BytesPerSecond int64         `json:"bytes_per_second"`
	Rows           []*Row        `json:"rows"`
	Starts         []*Start      `json:"starts,omitempty"`
	Restart        *Restart      `json:"restart,omitempty"`
	WorkingSet     []*WorkingSet `json:"working_set,omitempty"`
	// Prices are what the cost column is computed with.
	Prices price.List `json:"prices"`
}

// Row is what one query took in one mode.
type Row struct {
	Query       string `json:"query"`
	Mode        string `json:"mode"`
	Concurrency int    `json:"concurrency"`
	// Took is how long the row was measured, warming up included.
	Took    time.Duration      `json:"took_ns"`
	Systems map[string]*Figure `json:"systems"`
}

// Figure is what one system took for a query. Lists have one value a round; Latency and First have
// one a call.
type Figure struct {
	// CPU and Latency and First are milliseconds; CPU is that of the server for one call.
	CPU     []float64 `json:"cpu_ms"`
	Latency []float64 `json:"latency_ms"`
	First   []float64 `json:"first_ms"`
	// Later and LaterFirst are Latency and First of a process that has answered other questions.
	// Only S3Disk has them.
	Later      []float64 `json:"later_ms,omitempty"`
	LaterFirst []float64 `json:"later_first_ms,omitempty"`
	// Allocated is bytes, Objects a number, of one call.
	Allocated []float64 `json:"allocated_bytes"`
	Objects   []float64 `json:"allocated_objects"`
	// Peak is the largest resident set, in bytes.
	Peak []float64 `json:"peak_bytes"`
	// Bytes and Frames are the size of the answer.
	Bytes  int64 `json:"bytes"`
	Frames int   `json:"frames"`
	// Bucket is what one call asked of the bucket, of the rounds in which that was counted.
	Bucket []trips.Count `json:"bucket,omitempty"`
	// Requests is how many requests to the bucket a call made on average while several clients
	// asked.
	Requests []float64 `json:"requests,omitempty"`
}

// Asked is the median of what a call asked of the bucket, field by field.
func (f *Figure) Asked() trips.Count {
	median := func(get func(trips.Count) int64) int64 {
		xs := make([]float64, len(f.Bucket))
		for i, c := range f.Bucket {
			xs[i] = float64(get(c))
		}
		return int64(stats.Median(xs))
	}
	volume := func(get func(trips.Count) trips.Volume) trips.Volume {
		return trips.Volume{
			Requests: int(median(func(c trips.Count) int64 { return int64(get(c).Requests) })),
			Bytes:    median(func(c trips.Count) int64 { return get(c).Bytes }),
		}
	}
	return trips.Count{
		Index:  volume(func(c trips.Count) trips.Volume { return c.Index }),
		Chunks: volume(func(c trips.Count) trips.Volume { return c.Chunks }),
		Meta:   volume(func(c trips.Count) trips.Volume { return c.Meta }),
		Lists:  int(median(func(c trips.Count) int64 { return int64(c.Lists) })),
		Trips:  int(median(func(c trips.Count) int64 { return int64(c.Trips) })),
		Queued: int(median(func(c trips.Count) int64 { return int64(c.Queued) })),
	}
}

// Start is what the starts of one system over one data set took, with an empty data directory.
type Start struct {
	Set    string `json:"set"`
	Blocks int    `json:"blocks"`
	System string `json:"system"`
	// Ready is when it said that it was ready; Settled when it had the last answer of the bucket.
	// Both are seconds since the process began.
	Ready   []float64 `json:"ready_s"`
	Settled []float64 `json:"settled_s"`
	// CPU is seconds until it was at rest.
	CPU []float64 `json:"cpu_s"`
	// Peak and Resident are bytes: the largest resident set, and the one at rest.
	Peak     []float64     `json:"peak_bytes"`
	Resident []float64     `json:"resident_bytes"`
	Bucket   []trips.Count `json:"bucket"`
}
