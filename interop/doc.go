// Package interop compares larder with the Thanos it replaces: the same bucket, the same requests,
// equal answers. See README.md.
//
// The module never requires module larder: larder's Prometheus is newer than Thanos's, and one
// build list cannot hold both. larder is built and run as the process it is.
package interop
