// Package fleet makes buckets of ordinary blocks: those of Prometheus servers that watch a small
// fleet, with the meta.json of Thanos's shipper, and downsampled by Thanos's own library on
// request. Package layout makes the blocks on which gateways disagree. Package fleet makes the data
// that PromQL works on: counters that reset, histograms of every kind, series that come and go,
// replicas with gaps.
//
// The blocks are written by cmd/headblocks, built with either version of Prometheus, or by a
// Prometheus server.
package fleet
