// Package promql tests PromQL over larder against what Prometheus computes from the same blocks,
// and against a Querier over Thanos's own store: in every arrangement of Queriers, stores and
// shards, and with a store that fails half way.
package promql
