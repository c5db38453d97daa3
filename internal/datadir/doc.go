// Package datadir holds the directory that a process keeps its files in, for
// this process alone.
//
// A Dir is held by the lock of a file in it, which ends with the process however
// that ends; the file stays. Whoever is about to write calls Hold first: it makes
// the directory and takes the lock again if somebody has removed them, and says
// why where that cannot be. Then nothing must be written, and what was to be kept
// is done without: a directory is a cache, never a condition. Reading needs no
// lock, because every file verifies itself. So a directory on a disk that is
// read-only serves what it has, and one that comes to be usable is used from the
// next Hold on.
//
// Only a directory that another process holds at the start is an error of Open:
// two processes with one directory are a mistake that must be seen.
//
// # Locks
//
// Dir.mu guards the lock file and what is known of the directory. It is held
// while Hold looks at the disk, so only who is about to write there waits for it.
package datadir
