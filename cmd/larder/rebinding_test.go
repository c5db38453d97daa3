package main

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

// markUnder posts a mark in the same way as a browser after DNS rebinding.
func (p *process) markUnder(url, host string, id ulid.ULID) (code int, body string) {
	p.t.Helper()
	form := strings.NewReader("action=DELETION&detail=test&id=" + id.String())
	url += "/api/v1/blocks/mark"
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, url, form)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Origin", "http://"+host)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestReboundNameMarksNothing checks that a page after DNS rebinding, with equal Origin and Host,
// cannot write a mark at either address. Private names and given names can.
func TestReboundNameMarksNothing(t *testing.T) {
	for _, debugAddress := range []string{"", "--web.debug-address=127.0.0.1:0"} {
		bucket, ids := t.TempDir(), []ulid.ULID{{1}, {2}, {3}, {4}}
		for _, id := range ids {
			dir := filepath.Join(bucket, id.String())
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			meta := filepath.Join(dir, "meta.json")
			if err := os.WriteFile(meta, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{
			"--enable-admin-operations",
			"--web.allowed-hosts=larder.example.com", "--web.allowed-hosts=*.example.org",
		}
		if debugAddress != "" {
			args = append(args, debugAddress)
		}
		p := startProcess(t, folder(bucket), args...)
		url := p.url
		if debugAddress != "" {
			url = "http://" + addressIn(p.await(`"Listening on".*server=debug`))
		}
		_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
		marked := func(id ulid.ULID) error {
			_, err := os.Stat(filepath.Join(bucket, id.String(), "deletion-mark.json"))
			return err
		}
		for _, host := range []string{
			"evil.example:" + port, "larder.example.com.evil.example", "xexample.org",
		} {
			code, body := p.markUnder(url, host, ids[0])
			if code != 403 || !strings.Contains(body, "--web.allowed-hosts") {
				t.Errorf("under %s: got %d %s, want 403 and the flag", host, code, body)
			}
		}
		if err := marked(ids[0]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a mark was written: %v", err)
		}
		for i, host := range []string{
			"127.0.0.1:" + port, "localhost:" + port, "larder.example.com", "a.example.org:443",
		} {
			if code, body := p.markUnder(url, host, ids[i]); code != 204 {
				t.Errorf("under %s: got %d %s, want 204", host, code, body)
			}
			if err := marked(ids[i]); err != nil {
				t.Errorf("under %s: %v", host, err)
			}
		}
	}
}

// TestBadAllowedHosts checks that an invalid name fails the start.
func TestBadAllowedHosts(t *testing.T) {
	bucket := "--objstore.config=" + folder(t.TempDir())
	for _, bad := range []string{"https://a.example.com", "a.example.com:1", "a.example,b.c"} {
		want := `--web.allowed-hosts: "` + bad + `" is not a host name`
		refuses(t, nil, want, bucket, "--web.allowed-hosts="+bad)
	}
}
