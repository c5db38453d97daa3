package gateway

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"larder/interop/internal/process"
)

// BuildLarder returns the larder binary: the one named by LARDER_BIN, else built from the
// repository around this module. root is the repository's folder.
func BuildLarder(ctx context.Context, root string) (string, error) {
	if bin := os.Getenv("LARDER_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	return Build(ctx, root, "./cmd/larder")
}

// Build builds a command of the repository around this module and returns its path. If the binary
// is up to date, the go command does nothing; therefore every test may call this.
func Build(ctx context.Context, root, pkg string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin", filepath.Base(pkg)+"-interop")
	// Commands are built as they are shipped: with larder's go.mod, without this module's tags.
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// Larder is a running larder process.
type Larder struct {
	*process.Process
	Addr, HTTPAddr string
}

// StartLarder runs `larder store` over the bucket and waits until it is ready. It appends the extra
// flags.
func StartLarder(ctx context.Context, bin string, b Bucket, extra ...string) (*Larder, error) {
	flags, err := b.Flags()
	if err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"store", "--grpc-address=" + addrs[0], "--http-address=" + addrs[1], "--log.level=warn",
		"--drain-delay=0s", // no client waits for it
	}, flags...)
	p, err := process.Start(ctx, process.Options{
		Name: "larder", Bin: bin, Args: append(args, extra...), Ready: process.HTTP("http://" + addrs[1] + "/-/ready"),
	})
	if err != nil {
		return nil, err
	}
	return &Larder{Process: p, Addr: addrs[0], HTTPAddr: addrs[1]}, nil
}
