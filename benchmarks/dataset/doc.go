// Package dataset writes Thanos-format buckets for tests, benchmarks and the demo: folders of
// blocks, each with an index and chunk files from Prometheus's own writers and a meta.json as
// Thanos's components leave it.
//
// It is deterministic: a Layout and its seed decide every byte. A sample's value is a function of
// its series and its time, not of the block that it is written to, so blocks that overlap agree,
// neighbouring blocks continue one another, and the two replicas of a pair saw the same world at
// slightly different moments.
//
// It streams: a block's series are generated in index order, a few thousand bytes of chunks at a
// time. What grows with a block is its set of distinct strings, and for the small realistic sources
// their list of label sets.
//
// Downsampled blocks are computed from the samples that raw blocks would hold, in the shape that
// Thanos gives them (aggregate chunks), by code of this package.
//
// Nothing here is safe for use by several goroutines, but for Layout.Write, which writes blocks
// side by side itself.
package dataset
