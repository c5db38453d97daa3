package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
)

const (
	// lowest is above the ports that Prometheus, Thanos and memcached listen on by default.
	lowest = 20480
	// ephemeral is where the kernel's own range begins if the system does not report it.
	ephemeral = 32768
	// fewest is the least number of ports in the range. Linux begins its own range at 32768 by
	// default.
	fewest = 1024
	// attempts bounds the search. On any machine only a few of the ports are in use.
	attempts = 1000
)

// FreePorts returns n addresses of 127.0.0.1 that no process listens on. No other caller, in this
// process or another, gets one of them before this process ends.
//
// The ports lie below the range that the kernel chooses from; therefore neither a listener on port
// 0 nor an outgoing connection can use one first. A UDP socket on the port of the same number
// reserves it until this process ends. internal/loopback of larder's own module does the same.
func FreePorts(n int) ([]string, error) {
	until := kernelRange()
	if until < lowest+fewest {
		return nil, fmt.Errorf(
			"reserve ports: the kernel chooses ports from %d on, which leaves too few above %d "+
				"(raise the first number of net.ipv4.ip_local_port_range)",
			until,
			lowest,
		)
	}
	var out []string
	var last error
	for range attempts {
		if len(out) == n {
			return out, nil
		}
		port := lowest + rand.N(until-lowest)
		addr, err := reserve(port)
		if err != nil {
			last = err
			continue
		}
		out = append(out, addr)
	}
	return nil, fmt.Errorf(
		"reserve %d ports: got %d in %d attempts: %w", n, len(out), attempts, last,
	)
}

// kernelRange returns the lowest port that the kernel chooses by itself.
func kernelRange() int {
	from, to := 0, 0
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ephemeral
	}
	if _, err := fmt.Sscan(string(b), &from, &to); err != nil {
		return ephemeral
	}
	return from
}

// reserve reserves a port, or returns why it cannot.
func reserve(port int) (addr string, err error) {
	// It is a descriptor and not a net.PacketConn, because a finalizer would close that one too
	// early.
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return "", fmt.Errorf("UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, syscall.Close(fd))
		}
	}()
	if err := syscall.Bind(
		fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", fmt.Errorf("bind UDP port %d: %w", port, err)
	}
	l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
