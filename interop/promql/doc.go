// Package promql proves that PromQL over larder is what it should be: what Prometheus makes of the
// same blocks, and what a Querier makes of Thanos's own store, however the Querier, the stores and
// the shards are arranged, and when a store fails half way.
package promql
