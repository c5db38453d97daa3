package bucket

import (
	"strings"
	"testing"
)

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
