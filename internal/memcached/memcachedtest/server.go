package memcachedtest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/internal/loopback"
)

// startTime is how long a memcached may take to listen. It takes milliseconds.
const startTime = 20 * time.Second

// Options of a server. The zero value works.
type Options struct {
	// TLS makes the server accept TLS only.
	TLS *TLS
	// Args are further arguments of memcached, such as -m 8, -I 2m.
	Args []string
}

// TLS contains the paths of PEM files for a server.
type TLS struct {
	Cert, Key string
	// ClientCA, if not empty, is the authority of the client certificates that the server requires.
	ClientCA string
}

// Server is a memcached process.
type Server struct {
	// Addr is host:port. Restart keeps it.
	Addr string

	o    Options
	bin  string
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Start runs a memcached until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	bin, err := exec.LookPath("memcached")
	if err != nil {
		const reason = "memcached is not installed: apt-get install memcached"
		if os.Getenv("LARDER_REQUIRE") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	ports, err := loopback.Reserve(1) // keeps the port free for Restart
	if err != nil {
		t.Fatalf("memcached: %v", err)
	}
	s := &Server{Addr: ports[0], o: o, bin: bin}
	t.Cleanup(s.Kill)
	s.start(t)
	return s
}

// start runs memcached on its port and waits until it listens. memcached then writes its ports to a
// file, here a pipe, so that reading the file waits for it.
func (s *Server) start(t testing.TB) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatalf("memcached: %v", err)
	}
	ports := filepath.Join(t.TempDir(), "ports")
	pipe := ports + ".lck" // memcached writes here, then renames it
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatalf("memcached: %v", err)
	}
	// Open for writing too: then opening does not block, and reading does not end before memcached
	// has written.
	r, err := os.OpenFile(pipe, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("memcached: %v", err)
	}
	defer r.Close()

	args := []string{"-l", host, "-p", port, "-U", "0"}
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		args = append(args, "-u", u.Username) // memcached refuses to run as root unless told to
	}
	if tls := s.o.TLS; tls != nil {
		args = append(args, "-Z", "-o", "ssl_chain_cert="+tls.Cert+",ssl_key="+tls.Key)
		if tls.ClientCA != "" {
			args = append(args, "-o", "ssl_verify_mode=2,ssl_ca_cert="+tls.ClientCA)
		}
	}
	cmd := exec.Command(s.bin, append(args, s.o.Args...)...)
	cmd.Env = append(os.Environ(), "MEMCACHED_PORT_FILENAME="+ports)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("memcached: %v", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
		r.Close() // wakes the reader of the ports if memcached has failed
	}()
	s.cmd, s.done = cmd, done

	if err := r.SetReadDeadline(time.Now().Add(startTime)); err != nil {
		t.Fatalf("memcached: %v", err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		s.Kill()
		t.Fatalf("memcached %s does not listen: %v: %s", strings.Join(args, " "), err,
			stderr.String())
	}
	if want := "TCP INET: " + port; strings.TrimSpace(line) != want {
		t.Fatalf("memcached says that it listens on %q, not on %q", line, want)
	}
}

// Kill ends the server at once, like a crash. A second call does nothing.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.done
}

// Restart starts the killed server, empty, on its old port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill()
	s.start(t)
}

// Pause makes the server hang: connections open and it receives bytes, but does not answer.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	// Its threads stop one after the other, shortly after the signal.
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil ||
		!status.Stopped() {
		t.Fatalf("memcached does not stop: %v, status %v", err, status)
	}
}

// Resume ends Pause. The server answers what it received meanwhile.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGCONT)
}

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("memcached: %v: %v", sig, err)
	}
}

// Stats returns memcached's own counters by name: cmd_get is the number of keys requested,
// curr_items the number of values stored. It does not work with TLS.
func (s *Server) Stats(t testing.TB) map[string]string {
	t.Helper()
	stats := map[string]string{}
	err := s.command("stats", func(line string) bool {
		if name, ok := strings.CutPrefix(line, "STAT "); ok {
			name, value, _ := strings.Cut(name, " ")
			stats[name] = value
		}
		return line == "END"
	})
	if err != nil {
		t.Fatalf("memcached: stats: %v", err)
	}
	return stats
}

// Flush removes all values. It does not work with TLS.
func (s *Server) Flush(t testing.TB) {
	t.Helper()
	if err := s.command("flush_all", func(line string) bool { return line == "OK" }); err != nil {
		t.Fatalf("memcached: flush_all: %v", err)
	}
}

// command sends a command and calls last with each line of the answer, until it returns true.
func (s *Server) command(command string, last func(line string) bool) error {
	c, err := net.DialTimeout("tcp", s.Addr, startTime)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(startTime)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if last(lines.Text()) {
			return nil
		}
	}
	return errors.Join(lines.Err(), errors.New("the answer does not end"))
}
