// Package loopback reserves ports of 127.0.0.1 for servers that tests run as processes.
//
// A test that listens on port 0, closes the listener and passes the port to a process sometimes
// loses it: the kernel gives the same port to the next listener on port 0, or to an outgoing
// connection. Reserve returns ports below the range that the kernel chooses from. A UDP socket
// bound to the same number keeps other processes that use this package away from the port.
//
// interop has a copy, because it is a separate module.
//
// # Bytes and locks
//
// The package has no locks. The UDP socket of a port stays open until the process ends, so that a
// server that is killed and started again finds its port free. That costs one file descriptor for
// each port.
package loopback
