// Package disktest gives tests disks that are full, read-only, slow or failing.
//
// The faults are real: tests get file systems of their own, or processes whose system calls fail.
// Tmpfs mounts a file system; Fill, ReadOnly and Vanish break it; Inject runs a command under
// strace. A test is skipped, with the reason, if the machine lacks root or strace. If
// LARDER_REQUIRE is set, the test fails instead.
package disktest
