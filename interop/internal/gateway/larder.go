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
// repository around this module. root is the repository's folder. Where the binary is up to date
// the go command leaves it alone, so that every test may call this.
func BuildLarder(ctx context.Context, root string) (string, error) {
	if bin := os.Getenv("LARDER_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin", "larder-interop")
	// larder is built as it is shipped: with its own go.mod and without this module's build tags.
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/larder")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/larder: %w\n%s", err, out)
	}
	return bin, nil
}

// Larder is a running larder process.
type Larder struct {
	*process.Process
	Addr, HTTPAddr string
}

// StartLarder runs `larder store` over the bucket and waits until it says that it is ready. extra
// flags are appended.
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
		"--drain-delay=0s", // nobody has to notice that it stops
	}, flags...)
	p, err := process.Start(ctx, process.Options{
		Name: "larder", Bin: bin, Args: append(args, extra...), Ready: process.HTTP("http://" + addrs[1] + "/-/ready"),
	})
	if err != nil {
		return nil, err
	}
	return &Larder{Process: p, Addr: addrs[0], HTTPAddr: addrs[1]}, nil
}
