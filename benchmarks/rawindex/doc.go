// Package rawindex encodes index files of the TSDB exactly as given, for tests. Prometheus's writer
// refuses series and labels that are out of order; old writers did not, and such blocks exist. Here
// the labels of a series may be in any order, repeat a name or have no value, and series and chunks
// may be in any order or repeat. Everything else follows the format: sorted symbols, complete
// posting lists, checksums, the table of contents. Encode returns such a file.
//
// The package depends on the standard library alone. Module interop has a copy of rawindex.go,
// because it cannot require this module; a test there compares the two files.
package rawindex
