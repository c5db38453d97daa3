// Package trips counts what cold queries ask of the bucket, exactly and without real time.
//
// Its tests run a gateway within a testing/synctest bubble over a bucket of virtual latency: 20 ms
// to the first byte of a request, and 80 MB/s each. Only waiting takes time there, therefore the
// figures depend on no machine. Index headers are on disk, and all caches are empty. Rows with
// +disk have a disk cache, into which package store/prefetch has read the indexes.
//
// testdata/trips.txt has a row for each query of the comparison that the test repeats
// (docs/performance.md explains the names). A change of the code that changes a figure fails the
// test. `make trips` writes the table again; review its diff like code.
//
// testdata/scenarios.txt holds the queries of `larder bench`, cold and warm, to what they cost:
// reads, bytes, dependent trips and allocations. Its test also makes the gateway worse in one way
// for each of these, and checks that the comparison fails. CPU time is checked as the ratio of two
// gateways within one run: see cpu_linux_test.go.
//
// The package has no code besides its tests.
package trips
