// Package datadir locks the directory in which a process keeps its files.
//
// Open creates the directory and locks a file in it. The lock ends with the process, however that
// ends; the file stays. A package calls Lock before each write: Lock recreates a directory or lock
// file that was removed, and returns an error if the directory cannot be used. The package then
// writes nothing and continues without the file, because the directory is only a cache.
//
// Reading needs no lock, because every file verifies itself. A directory on a read-only disk
// therefore still serves what it has, and a directory that becomes usable is used from the next
// Lock on.
//
// Open fails only if another process has locked the directory. Two processes with one directory are
// a configuration mistake that must not go unnoticed.
//
// # Locks
//
// Dir.mu guards the lock file and the state of the directory. Lock holds it while it accesses the
// disk, so that a slow disk delays only goroutines that are about to write there.
//
// # Accepted risks
//
// If the directory is removed right after Lock and another process locks it, both processes write
// there until the next Lock. This is accepted because files are replaced by renames and verify
// themselves: the worst outcome is a cold cache.
package datadir
