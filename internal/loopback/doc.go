// Package loopback reserves ports of 127.0.0.1 for servers that tests run as processes of their
// own.
//
// A test that listens on port 0, closes the listener and hands the port to a process loses it now
// and then: the kernel gives the same port to the next listener on port 0, or to an outgoing
// connection. Ports from here lie below the range that the kernel chooses from. A UDP socket, bound
// to the port of the same number, keeps the other processes that use this package from it.
//
// interop has a copy, because it is a module of its own.
//
// # Who owns what
//
// The UDP socket of a port stays open until the process ends: a server that is killed finds its
// port free when it is started again. It costs one file descriptor a port.
package loopback
