// Command chaos breaks what larder depends on while it is asked, and holds every answer to that of
// a larder beside which nothing breaks: the command behind `make chaos`.
//
// It generates a bucket, serves a copy of it over S3, and runs two larder processes: the reference
// over the bucket itself, undisturbed, and the one under test over the copy, with a memcached, with
// caches that are too small and a data directory of its own. Workers ask both: the reference once
// for each question, before anything breaks. Then there is one round per fault: it is injected
// under load for a while and undone; the time until answers come without failure again is measured,
// and what is left in the idle process is counted. With --soak, faults come at random for a long
// time, and what is compared is the memory, too.
//
//	go run ./benchmarks/chaos --seed=7 --for=30s                   every fault
//	go run ./benchmarks/chaos --fault=kill-9,memcached-garbage
//	go run ./benchmarks/chaos --soak=20m
//
// A run fails for a wrong answer (and one that is empty, or part of one without an error, is
// wrong), for a series before an error that is not the answer's, for a failed request whose code
// says something else than what happened, for a round in which nothing was broken, for a recovery
// that takes too long, and for what a round leaves behind.
//
// The seed decides the bucket, what is asked, and what is broken; the moments are the machine's.
// Processes are the command's own children: on loopback, ended by their ids, and dead with it.
//
// load.mu guards the counts of a round, relay.mu its mode and connections, bucketUnderTest.mu which
// blocks there are. None is held while another is taken, or while anything is asked.
package main
