// Package rawindex is a copy of module larder's benchmarks/rawindex, which interop cannot import.
// It encodes index files exactly as told, without checks of order. A test compares the two files.
package rawindex
