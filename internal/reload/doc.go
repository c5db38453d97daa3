// Package reload puts changed configuration files to use while the process runs.
//
// A Unit is a piece of configuration with the files it is read from. A Reloader loads a unit again
// when one of its files holds something else than before, and all of them when it is asked to
// (SIGHUP). What a unit does with a file that is not usable is one thing: it keeps what it has. The
// Reloader logs the error and shows it in larder_config_last_reload_successful.
//
// Changes are noticed by the notifications of the directories that the files lie in, not of the
// files: editors and orchestrators replace files by renames, and Kubernetes swaps the symbolic link
// (..data) that a whole directory of links goes through. So the directory of what a link points to
// is watched too. A notification is only a reason to look: contents are compared, and they are
// compared every few minutes without any, for file systems that send none. What failed is loaded
// again then too.
//
// # Who owns what
//
// A Reloader's goroutine, that of Run, makes all calls of Load, one at a time, and owns all state;
// there are no locks.
package reload
