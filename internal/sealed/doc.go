// Package sealed keeps small files that verify themselves: what a process leaves
// on its disk for the next one.
//
// # Layout
//
// A first line, larder-<kind> <version> <length> <crc32c>, then the payload of
// that length and checksum. Whatever does not verify, or is of another kind or
// version, is for the caller to do without: it costs a fresh start, never a
// wrong one.
//
// # What a crash leaves
//
// A file is written under a temporary name and renamed: there is the old one or
// the new one. The temporary one of a process that was killed stays until
// RemoveTemps.
//
// The package owns no bytes and has no locks: two writers of one path must not
// run at once.
package sealed
