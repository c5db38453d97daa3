// Package web serves everything that the process shows over HTTP.
//
// Handler serves probes, metrics, profiles, Thanos's /api/v1/ for blocks and status, and web pages
// that the server renders. DebugHandler serves profiles and the marking of blocks on an address of
// their own. The caller passes a Blocks, which provides the blocks to show, and a Marker, which
// writes marks into the bucket. Every answer has the headers, deadlines and bounds that this
// package sets. Only cmd/larder imports it.
//
// # What it owns
//
// Pages are rendered into a buffer of their own. Other answers are written as they are made.
//
// # Locks
//
// places.mu guards the list of answers that are being made. It is held while the write deadline of
// an answer is set, which does not block. Probe.mu is held during a change of readiness and the
// call that tells of it. The states of a Probe are atomics.
//
// # Accepted risks
//
// Without --web.allowed-hosts, pages and /api/v1/ are served under every host name, because Thanos
// also lets every site read its API (CORS).
package web
