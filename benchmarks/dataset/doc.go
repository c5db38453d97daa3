// Package dataset writes Thanos-format buckets for tests, benchmarks and the demo. A Layout
// describes the blocks; Write makes a folder for each, with an index and chunk files from
// Prometheus's own writers and a meta.json like that of Thanos's components. Layouts such as Demo,
// Bench50k and ManyValues are ready to use. A Layout and its seed determine every byte.
//
// A sample's value is a function of its series and its time, not of its block. Therefore
// overlapping blocks agree, adjacent blocks continue each other, and the two replicas of a pair see
// the same world at slightly different moments.
//
// Memory: a block's series are generated in index order, a few thousand bytes of chunks at a time.
// Only the block's set of distinct strings grows with the block, and for the small realistic
// sources the list of label sets.
//
// Downsampled blocks are computed by this package from the samples that raw blocks would contain,
// as aggregate chunks in Thanos's form.
//
// Layout.Write writes blocks in parallel. Nothing else here is safe for concurrent use.
package dataset
