// Package dataset makes the data sets of the comparison: deterministic buckets that
// benchmarks/makebucket of larder's own module writes. Each is made once and kept in a cache folder
// under a name with its size and version.
package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"larder/interop/internal/gateway"
)

// version is part of the name of each folder. Raise it when benchmarks/dataset writes other bytes.
const version = 1

// Set is a data set.
type Set struct {
	// Name is that of the layout in benchmarks/dataset.
	Name string
	// Size and Short are the sizes of the whole and of the short form, in what the layout counts:
	// pods or blocks.
	Size, Short int
	// Holds says what is in it.
	Holds string
}

// All are the data sets.
func All() []Set {
	return []Set{
		{"medium", 1020, 12, "13 blocks of 100,000 series at 30 s: a compacted day, and the next day in blocks of 2 hours"},
		{"large", 10_204, 30, "one block of 2 hours with 1,000,000 series at 5 minutes"},
		{"many", 500, 30, "500 blocks of 2 hours with 100 series each, in 10 label sets"},
		{"downsampled", 100, 3, "2,000 series: 2 days raw, 14 days at 5 minutes and at 1 hour"},
		{"histograms", 2000, 20, "2 blocks of 2 hours with 2,000 native histograms each"},
		{"crowded", 10_000, 40, "10,000 blocks of 8 series"},
	}
}

// ByName returns a data set.
func ByName(name string) (Set, error) {
	for _, s := range All() {
		if s.Name == name {
			return s, nil
		}
	}
	return Set{}, fmt.Errorf("there is no data set %q", name)
}

// Maker makes data sets.
type Maker struct {
	// Root is larder's repository.
	Root string
	// Cache is the folder in which data sets are kept.
	Cache string
	// Short makes the short form of each.
	Short bool
	// Progress gets lines about the one that is being made.
	Progress io.Writer
}

// Make returns the folder of a data set, which is written unless the cache has it.
func (m *Maker) Make(ctx context.Context, s Set) (dir string, err error) {
	size := s.Size
	if m.Short {
		size = s.Short
	}
	dir = filepath.Join(m.Cache, fmt.Sprintf("%s-%d-v%d", s.Name, size, version))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	bin, err := gateway.Build(ctx, m.Root, "./benchmarks/makebucket")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(m.Cache, 0o777); err != nil {
		return "", err
	}
	// The folder gets its name when it is complete.
	tmp, err := os.MkdirTemp(m.Cache, ".making-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	begin := time.Now()
	fmt.Fprintf(m.Progress, "making data set %s (%s), once, in %s\n", s.Name, s.Holds, dir)
	cmd := exec.CommandContext(
		ctx, bin, "--layout="+s.Name, fmt.Sprintf("--size=%d", size), "--dir="+tmp,
	)
	cmd.Stdout, cmd.Stderr = m.Progress, m.Progress
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("make data set %s: %w", s.Name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		// Another process may have been faster.
		if _, e := os.Stat(dir); e != nil {
			return "", err
		}
	}
	fmt.Fprintf(m.Progress, "made %s in %s\n", s.Name, time.Since(begin).Round(time.Second))
	return dir, nil
}
