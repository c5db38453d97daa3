// Package fleet makes buckets of ordinary blocks: what Prometheus servers that watch a small fleet
// leave, with the meta.json that Thanos's shipper would give them, and downsampled by Thanos's own
// library where that is asked for. Where internal/layout crowds together what makes gateways
// disagree, a fleet is what PromQL over a bucket is about: counters that reset, histograms of every
// kind, series that come and go, replicas that missed something.
//
// The blocks are written by cmd/headblocks, built with one version of Prometheus or the other, or
// by a Prometheus server.
package fleet
