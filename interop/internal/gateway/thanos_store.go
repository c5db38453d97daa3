package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"larder/interop/internal/process"
)

// ThanosStore is a running `thanos store`, the program itself and not its library: what its process exports, logs and refuses.
type ThanosStore struct {
	*process.Process
	Addr, HTTPAddr string
}

// StartThanosStore runs `thanos store` over the bucket and waits until it says that it is ready. extra flags are appended.
func StartThanosStore(ctx context.Context, bin string, b Bucket, extra ...string) (*ThanosStore, error) {
	if err := os.MkdirAll(b.DataDir, 0o755); err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	args := []string{
		"store", "--data-dir=" + filepath.Join(b.DataDir, "data"),
		"--objstore.config=" + fmt.Sprintf("type: FILESYSTEM\nconfig:\n  directory: %q\n", b.Dir),
		"--grpc-address=" + addrs[0], "--http-address=" + addrs[1], "--log.level=warn",
	}
	p, err := process.Start(ctx, process.Options{
		Name: "thanos store", Bin: bin, Args: append(args, extra...), Ready: process.HTTP("http://" + addrs[1] + "/-/ready"),
	})
	if err != nil {
		return nil, err
	}
	return &ThanosStore{Process: p, Addr: addrs[0], HTTPAddr: addrs[1]}, nil
}
