package main

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestABucketThatCannotExist checks that the start fails with one line that names the flag and the
// key.
func TestABucketThatCannotExist(t *testing.T) {
	refuses(t, nil, `--objstore.config: config.bucket: "a b" cannot exist`,
		"--objstore.config={type: S3, config: {bucket: a b, endpoint: e}}")
}

// TestSilentBucketIsReported checks that a bucket that refuses connections, or accepts them and
// does not answer, is reported soon, and that the start continues.
func TestSilentBucketIsReported(t *testing.T) {
	// connections are accepted by the kernel and never served
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	for _, c := range []struct{ endpoint, want string }{{"127.0.0.1:1", "connection refused"},
		{hangs.Addr().String(), ""}} {
		p := startProcess(
			t,
			"{type: S3, config: {bucket: blocks, endpoint: '"+c.endpoint+"', insecure: true, region: r, access_key: a, secret_key: s}}",
		)
		line := p.await("the bucket has not answered yet")
		for _, want := range []string{"level=warn", "bucket=blocks", "endpoint=" + c.endpoint,
			c.want} {
			if !strings.Contains(line, want) {
				t.Errorf("the log lacks %q: %s", want, line)
			}
		}
		if c.want != "" && !strings.Contains(line, `bucket \"blocks\" at `+c.endpoint+": list: ") {
			t.Errorf("the error does not say what was asked of which bucket: %s", line)
		}
		if code, _ := p.get("/-/healthy"); code != http.StatusOK {
			t.Errorf("/-/healthy: got %d", code)
		}
	}
}

// TestPageAndLogAgreeOnMemory checks that the page shows every limit of the log line memory.
func TestPageAndLogAgreeOnMemory(t *testing.T) {
	p := startProcess(
		t, folder(t.TempDir()), "--index-cache.series-size=10MB", "--chunk-cache-size=3MB",
		"--store.request-bytes=96MB",
	)
	line := p.await("msg=memory")
	_, page := p.get("/")
	figures := regexp.MustCompile(`(\w+)=(\d+)MiB`).FindAllStringSubmatch(line, -1)
	if len(figures) < 5 {
		t.Fatalf("got %q of %s", figures, line)
	}
	for _, f := range figures {
		name := strings.ReplaceAll(f[1], "_", " ")
		want := regexp.MustCompile(`<td>` + name + `(<br><small>[^<]*</small>)?</td>` +
			`<td class="n"[^>]*>[^<]*</td><td class="n"[^>]*>` + f[2] + `\.0 MiB</td>`)
		if !want.MatchString(page) {
			t.Errorf("the page lacks %s with a limit of %s MiB", name, f[2])
		}
	}
}
