// Package localfs reads and writes files in larder's own directories without following links.
//
// A Dir has two parts. The base belongs to the operator: a data directory may be a link, and may
// lie behind links, as Kubernetes volumes do. The names below the base are larder's own. Each must
// be a directory, and each file in them a regular file. A link in one of these places is an error,
// ErrSpecial, even if it stays inside the directory: larder never creates links, so another program
// did.
//
// Every call opens the directory again, name by name, on an os.Root. The next call therefore
// notices a directory that was removed or replaced. A directory that is replaced during a call
// fails that call. New files and renames replace a link instead of following it.
//
// Own directories are created with mode 0750 and files with 0600, which a umask can only narrow.
// The base and its parents are created with 0755.
//
// # Bytes and locks
//
// The package owns no bytes and has no locks. Its calls may run concurrently, like those of package
// os.
package localfs
