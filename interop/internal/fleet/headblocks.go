package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// From is the first millisecond of a fleet's data.
const From = int64(1_700_006_400_000)

// BlockMillis is the range of a block.
const BlockMillis = int64(2 * 60 * 60 * 1000)

// Version is the version of Prometheus that writes the blocks.
type Version string

const (
	// Thanos is the version that Thanos pins, Larder the one that larder pins.
	Thanos Version = "thanos"
	Larder Version = "larder"
)

// Writer is a built cmd/headblocks.
type Writer struct{ bin string }

// Build builds the writer. root is the repository's folder. If the binary is up to date, the go
// command does nothing.
func Build(ctx context.Context, v Version, root string) (*Writer, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	w := &Writer{bin: filepath.Join(root, "bin", "headblocks-"+string(v))}
	var cmd *exec.Cmd
	switch v {
	case Thanos:
		cmd = exec.CommandContext(
			ctx, "go", "build", "-tags=slicelabels", "-o", w.bin, "larder/interop/cmd/headblocks",
		)
	case Larder:
		// Files, not a package: the folder belongs to this module, and is to be built with the
		// requirements of the other one.
		src := filepath.Join("interop", "cmd", "headblocks")
		cmd = exec.CommandContext(
			ctx,
			"go",
			"build",
			"-tags=current",
			"-o",
			w.bin,
			filepath.Join(
				src, "main.go",
			),
			filepath.Join(src, "fleet.go"),
			filepath.Join(src, "current.go"),
		)
		cmd.Dir = root
	default:
		return nil, fmt.Errorf("unknown version %q", v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf(
			"build headblocks with the Prometheus that %s pins: %w\n%s", v, err, out,
		)
	}
	return w, nil
}

// Samples describe the samples of a server.
type Samples struct {
	Seed    uint64
	Replica int
	Blocks  int
	// Newest writes the newest encodings of the TSDB. The version that Thanos pins does not know
	// them.
	Newest bool
}

// Write creates dir and writes blocks into it.
func (w *Writer) Write(ctx context.Context, dir string, s Samples) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(
		ctx, w.bin, "-dir="+dir, "-from="+strconv.FormatInt(From, 10),
		"-seed="+strconv.FormatUint(s.Seed, 10), "-replica="+strconv.Itoa(s.Replica),
		"-blocks="+strconv.Itoa(s.Blocks), "-newest="+strconv.FormatBool(s.Newest),
	)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("headblocks: %w\n%s", err, stderr.String())
	}
	return nil
}
