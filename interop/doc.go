// Package interop compares larder with the Thanos that it replaces: the same bucket, the same
// requests, equal answers. See README.md.
//
// The module never requires module larder: larder's Prometheus is newer than Thanos's, and one
// build list cannot contain both. larder is built and run as a process.
package interop
