package bucket

import (
	"strings"
	"testing"
)

// TestFingerprints: the provider, the name and the prefix tell buckets apart. Secrets and addresses
// do not count.
func TestFingerprints(t *testing.T) {
	of := func(text string) string {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c.Fingerprint()
	}
	one := of("{type: S3, config: {bucket: blocks, endpoint: e, secret_key: a}}")
	if one != of("{type: s3, config: {bucket: blocks, endpoint: f, secret_key: b}}") {
		t.Error("the endpoint or a secret counts")
	}
	seen := map[string]string{one: "S3"}
	for _, text := range []string{
		"{type: S3, config: {bucket: others, endpoint: e}}",
		"{type: S3, config: {bucket: blocks, endpoint: e}, prefix: p}",
		"{type: GCS, config: {bucket: blocks}}",
		"{type: FILESYSTEM, config: {directory: /blocks}}",
		"{type: FILESYSTEM, config: {directory: /others}}",
	} {
		if same, ok := seen[of(text)]; ok {
			t.Errorf("%s is the same as %s", text, same)
		}
		seen[of(text)] = text
	}
}

// TestBucketNamesThatCannotExist: a name that no bucket of the type can have is an error.
func TestBucketNamesThatCannotExist(t *testing.T) {
	f := func(conf, want string) {
		t.Helper()
		_, err := Parse([]byte(conf))
		if want == "" && err != nil ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", conf, err, want)
		}
	}
	for _, name := range []string{"ab", "a b", "my/bucket", "-a-", "a..b", "192.168.1.1",
		"s3://blocks", strings.Repeat("a", 64)} {
		f(
			"{type: S3, config: {bucket: '"+name+"', endpoint: e}}",
			`config.bucket: "`+name+`" cannot exist: S3 names`,
		)
	}
	f(
		"{type: S3, config: {bucket: My_Blocks.eu, endpoint: e}}",
		"",
	) // there are stores that have it
	f(
		"{type: GCS, config: {bucket: My-Blocks}}",
		`config.bucket: "My-Blocks" cannot exist: GCS names`,
	)
	f("{type: GCS, config: {bucket: google-blocks}}", "GCS names")
	f("{type: GCS, config: {bucket: blocks_1.example.com}}", "")
	f(
		"{type: AZURE, config: {container: a--b}}",
		`config.container: "a--b" cannot exist: Azure's containers`,
	)
	f("{type: AZURE, config: {container: Blocks}}", "Azure's containers")
	f("{type: AZURE, config: {container: blocks-1}}", "")
}
