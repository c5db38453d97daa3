// Command eviction compares what memory caches make of the pages that dashboards read:
//
//	go run ./benchmarks/eviction
//
// It writes the demo's bucket, several regions of it, into a temporary folder, serves it in this
// process, and asks it what people in front of dashboards ask: panels of a cluster, a service, a
// pod or a node, opened by how popular they are, refreshed while their time range slides, now and
// then the questions of the demo's tour. In between come scans: whole metrics over all time, and an
// export of archived blocks that nobody else reads. The pages that all this needs, in their order,
// are the trace; a seed decides it.
//
// The trace is then replayed, through pagecache's reader and over a bucket of zeros, against caches
// of equal memory. Printed are the shares of pages and of bytes found, of dashboards alone and of
// everything, what an operation costs, and what the caches really hold.
//
// Hit ratios of the caches that decide in the background depend on how fast the trace is replayed.
// "Paced" gives every page the time that a gateway takes at the very least to make something of it;
// "flat out" gives none, which no gateway can do.
package main
