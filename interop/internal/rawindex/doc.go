// Package rawindex is a copy of module larder's benchmarks/rawindex, which interop cannot require:
// it encodes index files exactly as it is told, without checks of order. A test compares the two
// files.
package rawindex
