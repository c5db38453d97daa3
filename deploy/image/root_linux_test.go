package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inRoot is the environment variable that names the root which enterRoot enters.
const inRoot = "LARDER_IMAGE_ROOT"

// patience bounds each run. A loaded machine needs minutes for what takes seconds otherwise.
const patience = 5 * time.Minute

// enterRoot replaces this process by larder: in the image's root, which is mounted read-only, as
// the image's user. Only the data directory can be written. The process has mounts of its own.
func enterRoot() {
	root := os.Getenv(inRoot)
	data := filepath.Join(root, dataDir)
	must := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "enter the root: %s: %v\n", what, err)
			os.Exit(3)
		}
	}
	must("own mounts", syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""))
	must("mount the root", syscall.Mount(root, root, "", syscall.MS_BIND, ""))
	must("mount the data directory", syscall.Mount(data, data, "", syscall.MS_BIND, ""))
	const readOnly = syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY
	must("mount the root read-only", syscall.Mount("", root, "", readOnly, ""))
	must("chroot", syscall.Chroot(root))
	must("chdir", os.Chdir(dataDir))
	must("setgroups", syscall.Setgroups(nil))
	must("setgid", syscall.Setgid(user))
	must("setuid", syscall.Setuid(user))
	if _, err := os.Create("/tmp/x"); !errors.Is(err, syscall.EROFS) {
		must("write to the root", fmt.Errorf("got %v, want a read-only file system", err))
	}
	must("exec", syscall.Exec("/bin/larder", append([]string{"larder"}, os.Args[1:]...),
		[]string{"PATH=/bin"}))
}

// larderIn is a command that runs larder in the root, killed with the test.
func larderIn(ctx context.Context, root string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = []string{inRoot + "=" + root}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	return cmd
}

// needRoot skips the test if it may not mount. With LARDER_REQUIRE, as in `make test`, it fails.
func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const reason = "mounting the image's root needs root"
	if os.Getenv("LARDER_REQUIRE") != "" {
		tb.Fatal(reason)
	}
	tb.Skip(reason)
}

// runInRoot unpacks the files and runs larder on them: the demo, which makes a bucket and queries
// it, and then the gateway on that bucket.
func runInRoot(t *testing.T, files map[string]file) {
	needRoot(t)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, root, files)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	version, err := larderIn(ctx, root, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(version), testVersion) ||
		!strings.Contains(string(version), testRevision) {
		t.Errorf("--version: %v\n%s", err, version)
	}
	demo, err := larderIn(ctx, root, "demo", "--once", "--dir="+dataDir+"/demo").CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, demo)
	}
	blocks, err := filepath.Glob(filepath.Join(root, dataDir, "demo/bucket/*/meta.json"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("the demo made %d blocks (%v):\n%s", len(blocks), err, demo)
	}

	serving := larderIn(ctx, root, "store", "--grpc-address=127.0.0.1:0",
		"--http-address=127.0.0.1:0", "--drain-delay=0s", "--data-dir="+dataDir+"/data",
		"--objstore.config={type: FILESYSTEM, config: {directory: "+dataDir+"/demo/bucket}}")
	log, err := serving.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Start(); err != nil {
		t.Fatal(err)
	}
	url, seen := awaitReady(log)
	if url == "" {
		_ = serving.Wait()
		t.Fatalf("larder is not ready:\n%s", seen)
	}
	metrics := get(t, url+"/metrics")
	loaded := fmt.Sprintf("\nthanos_bucket_store_blocks_loaded %d\n", len(blocks)-1)
	if !strings.Contains(metrics, loaded) {
		t.Errorf("the metrics do not contain %q (one of %d blocks is a duplicate)", loaded,
			len(blocks))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", serving.Process.Pid))
	if err != nil || !regexp.MustCompile(`(?m)^Uid:\t65532\t65532\t65532\t65532$`).Match(status) {
		t.Errorf("larder does not run as user %d: %v\n%s", user, err, status)
	}
	if err := serving.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(log)
	if err := serving.Wait(); err != nil {
		t.Errorf("larder ended with %v:\n%s%s", err, seen, rest)
	}
}

// unpack writes files to a folder, as a container's runtime does.
func unpack(t *testing.T, root string, files map[string]file) {
	t.Helper()
	for _, f := range files {
		to := filepath.Join(root, f.name)
		dir := filepath.Dir(to)
		if strings.HasSuffix(f.name, "/") {
			dir = to
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir != to {
			if err := os.WriteFile(to, f.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range files {
		to := filepath.Join(root, f.name)
		err := errors.Join(os.Chown(to, f.owner, f.owner), syscall.Chmod(to, uint32(f.mode)))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// awaitReady reads a log until larder is ready and returns the URL of its HTTP server, and what it
// read. The URL is empty if the log ends before.
func awaitReady(log io.Reader) (url, seen string) {
	listening := regexp.MustCompile(`msg="Listening on".* address=(\S+)`)
	ready := false
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		seen += lines.Text() + "\n"
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			url = "http://" + m[1]
		}
		ready = ready || strings.Contains(lines.Text(), `msg="readiness changed" ready=true`)
		if ready && url != "" {
			return url, seen
		}
	}
	return "", seen
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", url, resp.Status, err)
	}
	return string(body)
}
