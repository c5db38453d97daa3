// Command chaos breaks what larder depends on while larder is under load, and compares every answer
// with that of an undisturbed larder. It is the command behind `make chaos`. It generates a bucket,
// serves a copy of it over S3, and runs two larder processes. The reference reads the bucket
// itself. The process under test reads the copy, with a memcached, caches that are too small and a
// data directory of its own.
//
// Workers ask both; the reference answers each question once, before the first fault. Then one
// round per fault follows. The fault is injected under load for a while and undone. The round
// measures the time until answers arrive without failures again, and what the idle process still
// holds. With --soak, random faults are injected for a long time, and the memory is compared too.
// With --disk-soak, nothing is injected, the disk cache is smaller than what is asked for and there
// is no memcached: the run shows where pages come from, and fails if the disk cache exceeds its
// size or its write rate, or if anything accumulates.
//
//	go run ./benchmarks/chaos --seed=7 --for=30s                   every fault
//	go run ./benchmarks/chaos --fault=kill-9,memcached-garbage
//	go run ./benchmarks/chaos --soak=20m
//	go run ./benchmarks/chaos --disk-soak=10m --size=8 --questions=400
//
// A run fails for any of these reasons:
//
//   - a wrong answer; an empty or partial answer without an error is wrong,
//   - a series before an error that is not in the answer,
//   - a failed request with a code that does not fit the fault,
//   - a round in which no fault took effect,
//   - a recovery that takes too long,
//   - resources that a round leaves behind.
//
// The seed determines the bucket, the questions and the faults, but not their timing. Processes are
// children of the command: they listen on loopback, and end with it.
//
// LOCKING: load.mu guards the counts of a round, relay.mu its mode and connections,
// bucketUnderTest.mu the list of blocks. None is held while another is taken, or during a request.
package main
