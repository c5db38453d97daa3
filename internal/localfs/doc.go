// Package localfs reads and writes files in directories of larder's own, without
// following links.
//
// A Dir has two parts. Its base is the operator's: a data directory may be a
// link, and may lie behind links, as volumes of Kubernetes do. The names below
// the base are larder's own. Each of them must be a directory, and each file in
// them a regular file. A link in one of these places is an error, ErrSpecial,
// whether it leaves the directory or not: larder made the name and never makes
// links, so another program has put it there.
//
// Every call opens the directory again, name by name, on an os.Root. A directory
// that was removed or replaced is therefore noticed by the next call, and one that
// is replaced between two steps of a call fails it. New files and renames replace a
// link instead of following it.
//
// Permissions do not depend on the umask for what others may do: own directories
// are made with 0750 and files with 0600, which a umask can only narrow. The base
// and its parents are made with 0755.
//
// The package owns no bytes and has no locks. Its calls may run at once, as those
// of package os may.
package localfs
