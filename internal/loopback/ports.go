package loopback

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
	// ephemeral is the assumed begin of the kernel's own range if the system does not state it.
	// Linux begins it at 32768 by default.
	ephemeral = 32768
	// fewest is the minimum number of ports in the range.
	fewest = 1024
	// attempts bounds the search. Few of the ports are in use on any machine.
	attempts = 1000
)

// Reserve returns n addresses of 127.0.0.1 on which no process listens. No other caller of Reserve,
// in this process or another, gets one of them before this process ends.
func Reserve(n int) ([]string, error) {
	until := kernelRange()
	if until < lowest+fewest {
		return nil, fmt.Errorf(
			"reserve ports: the kernel chooses ports from %d on, too few remain above %d "+
				"(raise the first number of net.ipv4.ip_local_port_range)", until, lowest)
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

// kernelRange returns the lowest port that the kernel chooses itself.
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

// reserve reserves a port, or returns why the port is in use.
func reserve(port int) (addr string, err error) {
	// A descriptor, not a net.PacketConn, because a finalizer would close the latter.
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
	at := &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, at); err != nil {
		return "", fmt.Errorf("bind UDP port %d: %w", port, err)
	}
	l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
