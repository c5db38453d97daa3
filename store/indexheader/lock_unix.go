//go:build unix

package indexheader

import (
	"os"
	"syscall"
)

// lockFile locks an open file without waiting. The lock lasts until the file is closed or the
// process ends.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
