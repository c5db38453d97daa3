package redaction

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
)

const secret = "hunter2-s3cr3t"

// TestText checks that secrets are hidden and that other parts of a text stay.
func TestText(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		got := Text(s)
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", s, got, want)
		}
		if again := Text(got); again != got {
			t.Errorf("%q becomes %q when redacted twice", got, again)
		}
	}
	f("http://user:"+secret+"@host:1/x", "http://<REDACTED>@host:1/x")
	f("http://"+secret+"@host/x", "http://<REDACTED>@host/x")
	f("https://user:pa@ss/"+secret+"@host", "https://<REDACTED>@host")
	f(`Get "s3://a:`+secret+`@host/b": EOF`, `Get "s3://<REDACTED>@host/b": EOF`)
	f("lookup user:"+secret+"@host: no such host", "lookup <REDACTED>@host: no such host")
	f("dns+user:"+secret+"@host:11211", "dns+<REDACTED>@host:11211")
	f("user:"+secret+"@host", "<REDACTED>@host")
	f(`"a" "user:`+secret+`@host"`, `"a" "<REDACTED>@host"`)

	f(`Get "https://a.blob.example/c?comp=list&prefix=01&sv=2022&sig=`+secret+`": EOF`,
		`Get "https://a.blob.example/c?comp=list&prefix=01&sv=<REDACTED>&sig=<REDACTED>": EOF`)
	f("https://b.s3.example/k?X-Amz-Signature="+secret+"&X-Amz-Credential=AKIA%2F1",
		"https://b.s3.example/k?X-Amz-Signature=<REDACTED>&X-Amz-Credential=<REDACTED>")
	f("https://host/?list-type=2&delimiter=%2F", "https://host/?list-type=2&delimiter=%2F")
	f("https://host/?"+"anything="+secret, "https://host/?anything=<REDACTED>")
	f("GET /api/v1/blocks?view=loaded", "GET /api/v1/blocks?view=loaded")
	f("GET /x?view=a&access_token="+secret+"&b=c", "GET /x?view=a&access_token=<REDACTED>&b=c")
	f("BlobEndpoint=http://h/a;SharedAccessSignature=sv=1&sig="+secret,
		"BlobEndpoint=http://h/a;SharedAccessSignature=<REDACTED>&sig=<REDACTED>")
	f("AccountName=a;AccountKey="+secret+"==;X=y", "AccountName=a;AccountKey=<REDACTED>;X=y")
	f(`password="a b `+secret+`" x=y`, `password=<REDACTED> x=y`)

	f("Host: h\r\nX-Amz-Security-Token: "+secret+"\r\nAuthorization: A "+secret+", b\r\nDate: x",
		"Host: h\r\nX-Amz-Security-Token: <REDACTED>\r\nAuthorization: <REDACTED>\r\nDate: x")
	f("sent Bearer "+secret, "sent Bearer <REDACTED>")
	f("open -----BEGIN RSA PRIVATE KEY-----\n"+secret+"\n-----END RSA PRIVATE KEY-----: no",
		"open <REDACTED>: no")
	f("open -----BEGIN PRIVATE KEY-----\n"+secret, "open <REDACTED>")
	f("line 3: cannot unmarshal !!str `"+secret+"` into int",
		"line 3: cannot unmarshal !!str `<REDACTED>` into int")

	for _, same := range []string{
		"", "sync failed", "sa@project.iam.example does not have storage.objects.list access",
		"config.secret_key: got a list, want a string",
		"unknown key access_key, known keys are token, secret",
		"dial tcp 127.0.0.1:1: connect: connection refused",
		"lookup cache.example on 10.0.0.1:53: no such host",
		"max_size=250MB design=x signal=SIGTERM", "[::1]:10901", `{job="a", url=~"x.*"}`,
		"example.com/a/b@v1.2.3/file.go:12", "basic authentication failed", "2026-01-02T03:04:05Z",
		"--objstore.config-file /etc/bucket.yml: type is missing",
	} {
		f(same, same)
	}
}

func TestAddress(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		if got := Address(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
	f("host:11211", "host:11211")
	f("user:pa ss\"x@host:1", "<REDACTED>@host:1")
	f(secret+"@host", "<REDACTED>@host")
	f("http://u:p@q@host/?token="+secret, "http://<REDACTED>@host/?<REDACTED>")
	f("host:1?"+secret, "host:1?<REDACTED>")
	f("http://host/#"+secret, "http://host/#<REDACTED>")
}

// TestError checks that the text is redacted and that the original error can still be found.
func TestError(t *testing.T) {
	inner := errors.New("http://u:" + secret + "@host: no")
	err := Error(fmt.Errorf("list: %w", inner))
	if !errors.Is(err, inner) || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
	if plain := errors.New("no"); Error(plain) != plain || Error(nil) != nil {
		t.Error("Error changed an error without a secret")
	}
}

// TestDocument checks that values of a document are hidden in errors, also quoted or in part. Names
// and plain words stay.
func TestDocument(t *testing.T) {
	d := NewDocument([]byte(`
type: S3
config:
  bucket: blocks-7
  endpoint: s3.example:9000
  secret_key: swordfish
  access_key: &a "with \"quotes\" and é"
  http_config: {idle_conn_timeout: ` + secret + `, proxy: {x: 250XB, y: often}}
  headers: {authorization: Bearer, X-Frame-Options: deny, k3y-of-a-header: x}
  list: [a-9f8e7d, *a]
idle: 1m30s
client_id: 01234567-89ab-cdef-0123-456789abcdef
storage_account: account7
other: ` + secret + `-of-no-known-kind
service_account: '{"type": "service_account", "private_key": "` + secret + `-json",
  "client_email": "reader-7@project-1.iam.example", "token_uri": "https://host/token"}'
storage_connection_string: BlobEndpoint=https://account7.blob.example/;AccountKey=` + secret + `/Key
privatekey: |
  f1rst-line-of-key
  sec0nd-line
`))
	f := func(text, want string) {
		t.Helper()
		if got := d.Error(errors.New(text)).Error(); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	f("blocks-7 at s3.example:9000: 250XB often", "blocks-7 at s3.example:9000: 250XB often")
	f("got swordfish", "got <REDACTED>")
	f(`got "with \"quotes\" and é"`, `got "<REDACTED>"`)
	f("waited 1m30s", "waited 1m30s")
	f("no header X-Frame-Options, k3y-of-a-header", "no header X-Frame-Options, <REDACTED>")
	f("at account7: "+secret+"/Key", "at <REDACTED>: <REDACTED>")
	f("got "+secret+" and "+secret+"-json", "got <REDACTED> and <REDACTED>")
	f("header Bearer, item a-9f8e7d", "header <REDACTED>, item <REDACTED>")
	f("line sec0nd-line of f1rst-line-of-key", "line <REDACTED> of <REDACTED>")
	// Secrets hides no names.
	g := func(text, want string) {
		t.Helper()
		if got := d.Secrets().Text(text); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	g("lookup account7.blob.example: no", "lookup account7.blob.example: no")
	g("reader-7@project-1.iam.example may not list", "reader-7@project-1.iam.example may not list")
	g("post https://host/token: no, 01234567-89ab-cdef-0123-456789abcdef",
		"post https://host/token: no, 01234567-89ab-cdef-0123-456789abcdef")
	g("swordfish "+secret+"-json "+secret+"/Key", "<REDACTED> <REDACTED> <REDACTED>")
	g(secret+"-of-no-known-kind", "<REDACTED>")
	if err := (Document{}).Error(nil); err != nil {
		t.Errorf("got %v", err)
	}
	if NewDocument([]byte("a: [")).values != nil {
		t.Error("a text that is not YAML has values")
	}
}

func TestSecretKeys(t *testing.T) {
	for _, key := range []string{
		"access_key", "secret_key", "session_token", "service_account", "storage_account_key",
		"storage_connection_string",
		"client_secret", "secret_id", "access_key_id", "access_key_secret", "password",
		"application_credential_secret",
		"privatekey", "passphrase", "headers", "basic_auth_users", "encryption_key", "msi_resource",
		"Authorization",
	} {
		if !SecretKey(key) {
			t.Errorf("%s is not taken for a secret key", key)
		}
	}
	for _, key := range []string{"bucket", "endpoint", "key_file", "bearer_token_file", "max_size",
		"type"} {
		if SecretKey(key) {
			t.Errorf("%s is taken for a secret key", key)
		}
	}
}

// TestFile checks that a document or a key given as a path is not repeated.
func TestFile(t *testing.T) {
	for _, text := range []string{
		"{type: S3, config: {secret_key: " + secret + "}}", "type: S3\nconfig:\n secret_key: " +
			secret,
		"secret_key: " + secret, "-----BEGIN PRIVATE KEY-----" + secret, "https://u:" + secret +
			"@host/bucket.yml",
	} {
		_, err := os.ReadFile(text)
		if err == nil {
			t.Fatalf("the file %q exists", text)
		}
		if err = File(err); strings.Contains(err.Error(), secret) ||
			!strings.Contains(err.Error(), "want the path") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	_, err := os.ReadFile("/nowhere/bucket.yml")
	if got := File(err); got != err || !errors.Is(got, fs.ErrNotExist) {
		t.Errorf("got %v", got)
	}
}
