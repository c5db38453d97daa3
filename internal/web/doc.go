// Package web is what the process shows over HTTP: the probes, the metrics and the profiles.
//
// It owns no bytes and takes no locks; the Probe's two states are atomics. Only cmd/larder imports it.
package web
