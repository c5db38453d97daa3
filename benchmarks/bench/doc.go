// Package bench runs the scenarios of `larder bench` against a store gateway.
//
// A Target is the gateway: within this process, started by a function of the caller, or any
// StoreAPI endpoint. For each scenario, Run draws its requests, sends them in a closed or an open
// loop, and records times in HDR histograms. In an open loop the time of a request counts from its
// intended start, which does not depend on the answers to earlier requests. A slow gateway can
// therefore not hide its latency by delaying the load.
//
// Answers are counted and not decoded, so that the client's work stays small. Within one process,
// CPU time and allocations contain the client's share.
//
// recorder.mu guards histograms and sums, sampler.mu the largest sample; neither is held while a
// request runs.
package bench
