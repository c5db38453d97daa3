// Package reload applies changed configuration files while the process runs.
//
// A Unit is one piece of configuration and the files it is read from. A Reloader loads a unit again
// when the content of its files changes, and all units on request (SIGHUP). If loading fails, the
// unit keeps its current configuration, and the Reloader logs the error and sets
// larder_config_last_reload_successful to 0.
//
// # How changes are noticed
//
// The Reloader watches the directories of the files, not the files: editors and orchestrators
// replace files by renames, and Kubernetes swaps the symbolic link (..data) that a whole directory
// of links goes through. It therefore also watches the directory that a link points to. A
// notification only triggers a comparison of contents. Contents are also compared every few
// minutes, because some file systems send no notifications. Units that failed are loaded again
// then.
//
// # Goroutines and locks
//
// The goroutine of Run calls Load, one unit at a time, and owns all state. There are no locks.
package reload
