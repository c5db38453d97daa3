package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/buildinfo"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const (
	root         = "../.."
	testVersion  = "v1.2.3-test"
	testRevision = "0123456789abcdef0123456789abcdef01234567"
)

// TestMain is also the process that prepares the root of larder, see enterRoot.
func TestMain(m *testing.M) {
	if os.Getenv(inRoot) != "" {
		enterRoot()
	}
	os.Exit(m.Run())
}

// TestImage builds the image of this machine's architecture twice, the second time from a copy of
// the sources elsewhere, and looks into it.
func TestImage(t *testing.T) {
	o := options{
		root: root, out: filepath.Join(t.TempDir(), "layout"),
		version: testVersion, revision: testRevision, created: time.Unix(1_700_000_000, 0).UTC(),
		platforms: []v1.Platform{{OS: "linux", Architecture: runtime.GOARCH}},
	}
	digest, err := write(o)
	if err != nil {
		t.Fatal(err)
	}
	again := o
	again.root, again.out = copySources(t), filepath.Join(t.TempDir(), "layout")
	second, err := write(again)
	if err != nil {
		t.Fatal(err)
	}
	if digest != second {
		t.Errorf("two builds have the digests %s and %s", digest, second)
	}
	img := only(t, o)
	files := unpacked(t, img)
	t.Run("labels", func(t *testing.T) { checkConfig(t, o, img) })
	t.Run("files", func(t *testing.T) { checkFiles(t, files) })
	t.Run("bill of materials", func(t *testing.T) {
		checkBill(t, files["bin/larder"].content, files[bomPath].content)
	})
	t.Run("runs in its root alone", func(t *testing.T) { runInRoot(t, files) })
}

// copySources copies what larder is built from.
func copySources(t *testing.T) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "elsewhere")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch rel {
			case ".git", "bin", "data", "demo-data", "deploy", "docs", "interop":
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		content, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) || !d.Type().IsRegular() {
			return nil // a temporary file of a test that runs beside this one
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// only returns the one image of a layout, read back from disk and validated.
func only(t *testing.T, o options) v1.Image {
	t.Helper()
	top, err := layout.ImageIndexFromPath(o.out)
	if err != nil {
		t.Fatal(err)
	}
	index := descend(t, top, o.version)
	if err := validate.Index(index); err != nil {
		t.Fatalf("the index is not valid: %v", err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || !m.Manifests[0].Platform.Equals(o.platforms[0]) {
		t.Fatalf("the index has the manifests %v, want one for %v", m.Manifests, o.platforms)
	}
	if got := m.Annotations["org.opencontainers.image.revision"]; got != o.revision {
		t.Errorf("the index is annotated with revision %q, want %q", got, o.revision)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// descend returns the index of a layout, whose name must be the version.
func descend(t *testing.T, top v1.ImageIndex, version string) v1.ImageIndex {
	t.Helper()
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || !m.Manifests[0].MediaType.IsIndex() {
		t.Fatalf("index.json has %v, want one index", m.Manifests)
	}
	if got := m.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; got != version {
		t.Errorf("the image's name is %q, want %q", got, version)
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// unpacked returns the files of an image by their names without a leading slash. Each must come
// after its folder, because runtimes would make up the folder's owner and mode.
func unpacked(t *testing.T, img v1.Image) map[string]file {
	t.Helper()
	files := map[string]file{}
	r := mutate.Extract(img)
	defer r.Close()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			name += "/"
		}
		if dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "." && files[dir+"/"].name == "" {
			t.Errorf("%s comes before its folder", name)
		}
		if h.Uid != h.Gid || h.Uname != "" ||
			h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeReg {
			t.Errorf("%s: unexpected header %+v", name, h)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file{name: name, mode: h.Mode, owner: h.Uid, content: content}
	}
}

func checkConfig(t *testing.T, o options, img v1.Image) {
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Architecture != runtime.GOARCH || c.OS != "linux" {
		t.Errorf("the image is for %s/%s", c.OS, c.Architecture)
	}
	for name, want := range map[string]string{
		"version": o.version, "revision": o.revision, "created": "2023-11-14T22:13:20Z",
		"title": "larder", "licenses": "Apache-2.0",
	} {
		if got := c.Config.Labels["org.opencontainers.image."+name]; got != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}
	// Kubernetes can only check runAsNonRoot if the user is a number.
	if c.Config.User != "65532:65532" || c.Config.WorkingDir != dataDir {
		t.Errorf("user %q in %q", c.Config.User, c.Config.WorkingDir)
	}
	if got := c.Config.Entrypoint; len(got) != 1 || got[0] != "/bin/larder" {
		t.Errorf("entrypoint %q", got)
	}
	for _, port := range []string{"10901/tcp", "10902/tcp"} {
		if _, ok := c.Config.ExposedPorts[port]; !ok {
			t.Errorf("port %s is not exposed", port)
		}
	}
}

func checkFiles(t *testing.T, files map[string]file) {
	for name, f := range files {
		wantOwner, wantMode := 0, int64(0o644)
		switch {
		case name == "var/larder/":
			wantOwner, wantMode = user, 0o750
		case name == "tmp/":
			wantMode = 0o1777
		case strings.HasSuffix(name, "/"), name == "bin/larder":
			wantMode = 0o755
		}
		if f.owner != wantOwner || f.mode != wantMode {
			t.Errorf("%s: owner %d, mode %o; want %d, %o", name, f.owner, f.mode, wantOwner,
				wantMode)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"].content) ||
		len(roots.Subjects()) < 100 { //nolint:staticcheck // not the system's pool
		t.Error("ca-certificates.crt has less than 100 certificates")
	}
	for name, want := range map[string]string{
		"etc/passwd": "nonroot:x:65532:65532:", "etc/group": "nonroot:x:65532:",
		"usr/share/doc/larder/LICENSE": "Apache License",
	} {
		if !bytes.Contains(files[name].content, []byte(want)) {
			t.Errorf("%s does not contain %q", name, want)
		}
	}
}

// checkBill compares the bill of materials with the build info of the binary, and the build info
// with what the image promises.
func checkBill(t *testing.T, binary, text []byte) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	for key, want := range map[string]string{
		"CGO_ENABLED": "0", "-trimpath": "true", "-tags": "timetzdata", "GOARCH": runtime.GOARCH,
	} {
		if settings[key] != want {
			t.Errorf("the binary is built with %s=%s, want %s", key, settings[key], want)
		}
	}
	if !bytes.Contains(binary, []byte("Europe/Berlin")) {
		t.Error("the binary has no time zones")
	}
	var bom cyclonedx.BOM
	decoder := cyclonedx.NewBOMDecoder(bytes.NewReader(text), cyclonedx.BOMFileFormatJSON)
	if err := decoder.Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if c := bom.Metadata.Component; c.Name != "larder" || c.Version != testVersion {
		t.Errorf("the bill is of %s %s", c.Name, c.Version)
	}
	listed := map[string]cyclonedx.Component{}
	for _, c := range *bom.Components {
		listed[c.PackageURL] = c
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c, ok := listed["pkg:golang/"+m.Path+"@"+m.Version]
		if !ok || c.Hashes == nil || len((*c.Hashes)[0].Value) != 64 {
			t.Errorf("the bill has no hash of %s %s", m.Path, m.Version)
		}
	}
	if len(listed) != len(info.Deps)+1 {
		t.Errorf("the bill has %d components, want %d modules and the standard library",
			len(listed), len(info.Deps))
	}
}

// TestDockerfile: the Dockerfile and this command make the same image, from the same Go.
func TestDockerfile(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	match := func(expr, text string) string {
		t.Helper()
		m := regexp.MustCompile(expr).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing matches %s", expr)
		}
		return m[1]
	}
	dockerfile := read("Dockerfile")
	mod := match(`(?m)^go (\S+)$`, read("go.mod"))
	if got := match(`(?m)^FROM .*golang:([0-9.]+)`, dockerfile); got != mod {
		t.Errorf("the Dockerfile builds with Go %s, go.mod asks for %s", got, mod)
	}
	for _, from := range regexp.MustCompile(`(?m)^FROM .*$`).FindAllString(dockerfile, -1) {
		if !regexp.MustCompile(`@sha256:[0-9a-f]{64}( |$)`).MatchString(from) {
			t.Errorf("the Dockerfile does not pin the digest: %s", from)
		}
	}
	if own := match(`(?m)^go (\S+)$`, read("deploy/image/go.mod")); own != mod {
		t.Errorf("deploy/image/go.mod asks for Go %s, go.mod for %s", own, mod)
	}
	for _, want := range []string{
		"FROM --platform=$BUILDPLATFORM ", "GOARCH=$TARGETARCH", "CGO_ENABLED=0", "-trimpath",
		"-tags timetzdata", versions + ".Version=", versions + ".Revision=", "USER 65532:65532",
		"WORKDIR " + dataDir, `ENTRYPOINT ["/bin/larder"]`, `CMD ["store", "--help"]`,
		"EXPOSE 10901 10902",
	} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("the Dockerfile lacks %s", want)
		}
	}
}

func TestBadArguments(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		if err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, err, want)
		}
	}
	f("--out is missing")
	f("--out: .. has files, but no image", "--out=..")
	f(`--platforms: "linux/s390x"`, "--out=x", "--platforms=linux/s390x")
	f(`--platforms: "windows/amd64"`, "--out=x", "--platforms=linux/amd64,windows/amd64")
	f(`--version: "a b"`, "--out=x", "--version=a b")
	f(`unexpected argument "y"`, "--out=x", "y")
}
