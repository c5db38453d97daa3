package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"larder/interop/internal/gateway"
)

// serveCommand makes this program a Thanos store gateway, so that Thanos runs in a process of its
// own.
const serveCommand = "serve-thanos"

func serveThanos(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(serveCommand, flag.ContinueOnError)
	bucket := fs.String("bucket", "", "the bucket's folder")
	dataDir := fs.String("data-dir", "", "a folder of its own")
	cache := fs.Int64("index-cache-size", 0, "bytes; 0 is the default")
	if err := fs.Parse(args); err != nil {
		return err
	}
	t, err := gateway.StartThanos(
		ctx, gateway.Bucket{Dir: *bucket, DataDir: *dataDir},
		gateway.ThanosOptions{NoHints: true, IndexCache: *cache},
	)
	if err != nil {
		return err
	}
	fmt.Println(t.Addr)
	<-ctx.Done()
	return t.Close()
}

// child is a Thanos in its own process.
type child struct {
	addr string
	cmd  *exec.Cmd
}

func startThanos(ctx context.Context, bucket, dataDir string, cache int64) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{
		cmd: exec.CommandContext(
			ctx, self, serveCommand, "--bucket="+bucket, "--data-dir="+dataDir,
			fmt.Sprintf("--index-cache-size=%d", cache),
		),
	}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	// The address is written once the blocks are loaded.
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("Thanos did not start: %w", err), c.close())
	}
	c.addr = strings.TrimSpace(line)
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) close() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return c.cmd.Wait()
}
