// Package rawindex encodes index files of the TSDB exactly as it is told. Prometheus's writer
// refuses series and labels that are out of order; writers in the field did not, and such blocks
// exist.
//
// It is for tests: labels of a series may be in any order, repeat a name or have no value, series
// may be in any order or repeat, and so may chunks. Everything else is as the format demands:
// sorted symbols, complete posting lists, checksums, the table of contents.
//
// The package depends on the standard library alone. Module interop has a copy of rawindex.go,
// because it cannot require this module; a test there compares the two files.
package rawindex
