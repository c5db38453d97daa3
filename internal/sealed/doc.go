// Package sealed reads and writes small files that verify themselves.
//
// A process keeps such files on disk for the next process. Format.Write replaces a file in one
// step, and Format.Read verifies it. A file that does not verify, or has another kind or version,
// is an error; the caller then continues without it. That costs a cold start, never a wrong answer.
//
// # Layout
//
// The first line is larder-<kind> <version> <length> <crc32c>. The payload of that length and
// checksum follows.
//
// # What a crash leaves
//
// A file is written under a temporary name and renamed, so a crash leaves the old file or the new
// one. The temporary file of a process that was killed remains until RemoveTemps.
//
// # Bytes and locks
//
// The package owns no bytes and has no locks. The caller must not write one path from two
// goroutines at once.
package sealed
