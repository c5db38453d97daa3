// Package disktest gives tests disks that are full, read-only, slow or failing,
// for real: file systems of their own, and processes whose system calls fail.
//
// What a machine lacks (root, strace) skips the test with the reason, unless
// LARDER_REQUIRE is set: then it fails.
package disktest
