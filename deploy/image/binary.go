package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// versions is the package whose variables are larder's version.
const versions = "github.com/prometheus/common/version"

func parsePlatform(s string) (v1.Platform, error) {
	system, arch, ok := strings.Cut(s, "/")
	if !ok || system != "linux" || arch != "amd64" && arch != "arm64" {
		return v1.Platform{}, fmt.Errorf(
			"--platforms: %q: larder's images are for linux/amd64 and linux/arm64", s)
	}
	return v1.Platform{OS: system, Architecture: arch}, nil
}

// compile builds a static larder for a platform and writes it to path. The time zones are linked
// into it, because the image has no files of them.
func compile(o options, p v1.Platform, path string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags=timetzdata",
		"-ldflags=-s -w -buildid= -X "+versions+".Version="+o.version+
			" -X "+versions+".Revision="+o.revision,
		"-o", path, "./cmd/larder")
	cmd.Dir = o.root
	// What the environment says about targets must not reach the image.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Architecture,
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build for %s: %w\n%s", p, err, out)
	}
	return nil
}
