package loopback

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const childEnv = "LOOPBACK_TEST_CHILD"

// TestMain lets the test binary run as a child process that reserves one port.
func TestMain(m *testing.M) {
	if port := os.Getenv(childEnv); port != "" {
		n, err := strconv.Atoi(port)
		if err == nil {
			_, err = reserve(n)
		}
		if err != nil {
			_, _ = os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestReservedPortsAreDistinct: many goroutines reserve ports. All ports differ, a server can
// listen on each, and none is in the range from which the kernel chooses.
func TestReservedPortsAreDistinct(t *testing.T) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]bool{}
	for range 8 {
		wg.Go(func() {
			addrs, err := Reserve(8)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, a := range addrs {
				if seen[a] {
					t.Errorf("%s was reserved twice", a)
				}
				seen[a] = true
			}
		})
	}
	wg.Wait()
	for a := range seen {
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Error(err)
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if port < lowest || port >= kernelRange() {
			t.Errorf("port %d is outside the range from %d to %d", port, lowest, kernelRange())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAReservedPortIsKept: neither this process nor another can reserve a port again.
func TestAReservedPortIsKept(t *testing.T) {
	addrs, err := Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reserve(port); err == nil {
		t.Errorf("port %d was reserved twice in one process", port)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+text)
	if out, err := child.Output(); err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("another process reserved port %d: %v %q", port, err, out)
	}
}

// TestAPortThatIsServedIsNotReserved: a server that did not call Reserve keeps its port, and the
// attempt leaves no reservation.
func TestAPortThatIsServedIsNotReserved(t *testing.T) {
	for range attempts {
		port := lowest + rand.N(kernelRange()-lowest)
		other, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		_, served := reserve(port)
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if served == nil {
			t.Fatalf("port %d was reserved although a server listens on it", port)
		}
		if !strings.Contains(served.Error(), "listen") {
			continue // another process, or an earlier run of this test, has reserved it
		}
		if _, err := reserve(port); err != nil {
			t.Errorf("reserve port %d after its server closed: %v", port, err)
		}
		return
	}
	t.Fatal("no port is free")
}
