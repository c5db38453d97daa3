//go:build !unix

package indexheader

import "os"

// lockFile does nothing. On these systems two processes must not share a directory.
func lockFile(*os.File) error { return nil }
