package chart

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// larderBinary builds larder, once. LARDER_BIN names another one.
var larderBinary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("LARDER_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin", "larder-chart")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/larder")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/larder: %w\n%s", err, out)
	}
	return bin, nil
})

// running is a larder process that was ready.
type running struct {
	http string // addresses of its ports
	grpc string
	root string // the folder with the files that its arguments name
	cmd  *exec.Cmd
	done chan error
	once sync.Once // ends the process
}

// start runs the binary with the arguments of a pod over the blocks in a folder, and waits until it
// is ready. The files of its volumes are in a folder of the test.
func start(t *testing.T, l *layout, p pod, bucket string) *running {
	t.Helper()
	bin, err := larderBinary()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for file, from := range p.files(t) {
		write(t, filepath.Join(root, file), content(t, l, file, from, bucket))
	}
	var args []string
	for _, a := range p.args() {
		flag, value, _ := strings.Cut(a, "=")
		switch {
		case flag == "--grpc-address", flag == "--http-address":
			a = flag + "=127.0.0.1:0"
		case flag == "--log.format":
			a = flag + "=json"
		case flag == "--log.level":
			a = flag + "=info"
		case strings.HasPrefix(value, "/"):
			a = flag + "=" + filepath.Join(root, value)
		}
		args = append(args, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := run(ctx, t, bin, args)
	r.root = root
	return r
}

// run starts the binary and reads its log until it says that it is ready.
func run(ctx context.Context, t *testing.T, bin string, args []string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(bin, args...), done: make(chan error, 1)}
	// A test binary that is killed must not leave a server behind.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var log strings.Builder
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		isReady, told := false, false // servers may log their addresses after that
		for lines.Scan() {
			var line struct {
				Msg, Server, Address string
				Ready                bool
			}
			_ = json.Unmarshal(lines.Bytes(), &line) // kingpin's errors are not JSON
			mu.Lock()
			fmt.Fprintln(&log, lines.Text())
			if line.Msg == "Listening on" && line.Server == "http" {
				r.http = line.Address
			}
			if line.Msg == "serving gRPC" {
				r.grpc = line.Address
			}
			mu.Unlock()
			isReady = isReady || line.Msg == "readiness changed" && line.Ready
			if isReady && !told && r.http != "" && r.grpc != "" {
				told = true
				close(ready)
			}
		}
		r.done <- r.cmd.Wait()
	}()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-ready:
	case err := <-r.done:
		r.done <- err
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("larder %q ended: %v\n%s", args, err, log.String())
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("larder %q is not ready: %v\n%s", args, ctx.Err(), log.String())
	}
	return r
}

// stop ends the process without its drain and waits for it. The test does so at its end.
func (r *running) stop(t *testing.T) {
	r.once.Do(func() {
		_ = r.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		if err := <-r.done; err != nil && !t.Failed() {
			t.Errorf("larder ended with %v", err)
		}
	})
}

// content returns what a mounted file has: that of a rendered ConfigMap, or a stand-in for what
// users keep in Secrets.
func content(t *testing.T, l *layout, file string, from source, bucket string) []byte {
	t.Helper()
	if c := l.config(from.config); c != nil {
		return []byte(c.Data[from.key])
	}
	switch filepath.Base(file) {
	case "objstore.yml":
		return fmt.Appendf(nil, "type: FILESYSTEM\nconfig:\n  directory: %q\n", bucket)
	case "peers.yml":
		return []byte("tls_config: {insecure_skip_verify: true}\n")
	case "web-config.yml":
		return []byte("{}\n")
	case "tls.crt", "ca.crt":
		return certificate(t)[0]
	case "tls.key":
		return certificate(t)[1]
	}
	t.Fatalf("%s: the test does not know what is in it", file)
	return nil
}

// certificate returns a self-signed certificate and its key, the same in every call.
var certificate = func() func(t *testing.T) [2][]byte {
	made := sync.OnceValues(func() (out [2][]byte, err error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return out, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
			BasicConstraintsValid: true, DNSNames: []string{"larder"},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			return out, err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		out[0] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		out[1] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
		return out, err
	})
	return func(t *testing.T) [2][]byte {
		t.Helper()
		out, err := made()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}()

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestArgumentsStart: every list of arguments in the matrix starts the binary, with the files that
// the chart mounts. No flag is given twice, and the binary ignores none.
func TestArgumentsStart(t *testing.T) {
	bin, err := larderBinary()
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(bin, "store", "--help-man").Output()
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.ReplaceAll(string(help), `\`, "")
	var started []string
	each(t, func(t *testing.T, l *layout) {
		pods := l.pods()
		for _, p := range []pod{pods[0], pods[len(pods)-1]} {
			key := strings.Join(p.args(), " ")
			if slices.Contains(started, key) {
				continue
			}
			started = append(started, key)
			seen := map[string]bool{}
			for _, a := range p.args()[1:] {
				flag, _, _ := strings.Cut(a, "=")
				if seen[flag] {
					t.Errorf("%s is given twice", flag)
				}
				seen[flag] = true
				// The manual leaves out hidden flags of Thanos. They start the binary too.
				name := strings.TrimPrefix(flag, "--")
				hidden := name == "store.caching-bucket.config-file"
				if !hidden && !strings.Contains(manual, "--"+name) &&
					!strings.Contains(manual, "--[no-]"+name) {
					t.Errorf("%s is not in the manual", flag)
				}
			}
			start(t, l, p, t.TempDir())
		}
	})
	t.Logf("started %d lists of arguments", len(started))
}
