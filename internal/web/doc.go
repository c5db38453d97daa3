// Package web is what the process shows over HTTP: the probes, the metrics, the profiles, Thanos's
// /api/v1/ for blocks and status, and pages for people, drawn on the server.
//
// It owns no bytes and takes no locks; the Probe's two states are atomics. What blocks there are it
// asks of a Blocks, a mark is written by a Marker; both are given to it. Only cmd/larder imports
// it.
package web
