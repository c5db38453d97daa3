package objectstores

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

// prefix is where the blocks are. The slashes around it must not matter.
const prefix = "team/blocks"

// store is one kind of object store.
type store struct {
	name string
	// start runs a server and returns the bucket's YAML without its prefix.
	start func(t *testing.T) string
	// spoil makes the credentials in the YAML wrong; nil if the server accepts any.
	spoil func(yaml string) string
	// refusal is what larder must report about them.
	refusal string
}

var stores = []store{
	{
		name:  "S3",
		start: func(t *testing.T) string { return startS3(t) },
		spoil: func(yaml string) string {
			return strings.Replace(yaml, "access_key: larder", "access_key: another", 1)
		},
		refusal: "access key ID",
	},
	{
		name:  "GCS",
		start: startGCS,
		spoil: func(yaml string) string {
			return strings.Replace(yaml, "larder@test", "another@test", 1)
		},
		refusal: "invalid_grant",
	},
	{
		name:  "AZURE",
		start: startAzurite,
		spoil: func(yaml string) string {
			return strings.Replace(yaml, "AccountKey=Eby8", "AccountKey=AAAA", 1)
		},
		refusal: "AuthorizationFailure",
	},
	{
		name: "FILESYSTEM",
		start: func(t *testing.T) string {
			return fmt.Sprintf("type: FILESYSTEM\nconfig:\n  directory: %q\n", t.TempDir())
		},
	},
}

func run(t *testing.T, o process.Options) {
	t.Helper()
	p, err := process.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	addrs, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

func startS3(t *testing.T, flags ...string) string {
	addr := freePort(t)
	run(t, process.Options{
		Name: "s3", Bin: programs.S3(t), Args: append([]string{"-listen=" + addr}, flags...), Ready: process.HTTP("http://" + addr + "/-/ready"),
	})
	return fmt.Sprintf(
		"type: S3\nconfig:\n  bucket: blocks\n  endpoint: %s\n  access_key: larder\n  secret_key: secret\n  insecure: true\n",
		addr,
	)
}

// startGCS directs the client to the server by the variable that Google's libraries read; larder
// inherits it. The client first requests a token from the server that the service account names:
// here one that knows only larder@test.
func startGCS(t *testing.T) string {
	addr := freePort(t)
	host, port, _ := strings.Cut(addr, ":")
	run(t, process.Options{
		Name: "fake-gcs-server", Bin: programs.GCS(t),
		Args: []string{
			"-scheme=http",
			"-backend=memory",
			"-log-level=error",
			"-host=" + host,
			"-port=" + port,
			"-public-host=" + addr,
		},
		Ready: process.HTTP("http://" + addr + "/_internal/healthcheck"),
	})
	resp, err := http.Post(
		"http://"+addr+"/storage/v1/b?project=test", "application/json",
		strings.NewReader(`{"name":"blocks"}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("make the bucket: %s", resp.Status)
	}
	t.Setenv("STORAGE_EMULATOR_HOST", addr)
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, claims, _ := strings.Cut(r.FormValue("assertion"), ".")
		claims, _, _ = strings.Cut(claims, ".")
		if text, err := base64.RawURLEncoding.DecodeString(claims); err != nil ||
			!bytes.Contains(text, []byte(`"larder@test"`)) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_grant","error_description":"account not found"}`)
			return
		}
		fmt.Fprint(w, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "test", "client_email": "larder@test",
		"private_key_id": "1", "token_uri": tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("type: GCS\nconfig:\n  bucket: blocks\n  service_account: '%s'\n", account)
}

// The well-known account and key of Azurite.
const (
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

func startAzurite(t *testing.T) string {
	addr := freePort(t)
	host, port, _ := strings.Cut(addr, ":")
	bin, args := programs.Azurite(t)
	run(t, process.Options{
		Name: "azurite", Bin: bin,
		Args: append(
			args, "--blobHost", host, "--blobPort", port, "--inMemoryPersistence", "--silent",
			"--skipApiVersionCheck", "--disableTelemetry",
		),
		Ready: process.Listening(addr),
	})
	return fmt.Sprintf(
		"type: AZURE\nconfig:\n  container: blocks\n  storage_account: devstoreaccount1\n  storage_connection_string: \"DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%[1]s;\"\n",
		azureAccount, azureKey, addr,
	)
}

// get returns a page's body and status; 0 if no server answers.
func get(ctx context.Context, url string) (string, int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		return "", 0
	}
	return b.String(), resp.StatusCode
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
