// Command eviction compares memory caches by the pages that dashboards read. Run it with
//
//	go run ./benchmarks/eviction
//
// It writes several regions of the demo's bucket into a temporary folder, serves it in this
// process, and sends the queries of dashboards: panels of a cluster, a service, a pod or a node,
// opened by popularity and refreshed while their time range moves, and sometimes the questions of
// the demo's tour. In between come scans: whole metrics over all time, and an export of archived
// blocks that no dashboard reads. The pages of all these queries, in order, are the trace. A seed
// determines it.
//
// The trace is then replayed, through pagecache's reader over a bucket of zeros, against caches of
// equal memory. The output is the share of pages and of bytes found, for dashboards alone and for
// everything, the cost of an operation, and the memory that the caches really use.
//
// Hit ratios of caches that decide in the background depend on the speed of the replay. "Paced"
// gives every page the minimum time that a gateway needs to process it. "Flat out" gives none,
// faster than any gateway.
package main
