//go:build !unix

package indexheader

import "os"

// lockFile does nothing: two processes must not share a directory here.
func lockFile(*os.File) error { return nil }
