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

	"golang.org/x/sys/unix"

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
	// Setup is about how many seconds it takes to start the systems over it in all modes and to
	// compare their answers, Start those of one start of each with an empty data directory. The
	// progress lines use them.
	Setup, Start float64
	// Slow is set if a start takes a minute or more.
	Slow bool
}

// All are the data sets.
func All() []Set {
	return []Set{
		{
			Name: "medium", Size: 1020, Short: 12, Setup: 20,
			Holds: "13 blocks of 100,000 series at 30 s: a compacted day, " +
				"and the next day in blocks of 2 hours",
		},
		{
			Name: "large", Size: 10_204, Short: 30, Setup: 45,
			Holds: "one block of 2 hours with 1,000,000 series at 5 minutes",
		},
		{
			Name: "many", Size: 500, Short: 30, Setup: 15, Start: 12,
			Holds: "500 blocks of 2 hours with 100 series each, in 10 label sets",
		},
		{
			Name: "month", Size: 360, Short: 24, Setup: 15,
			Holds: "360 blocks of 2 hours, 30 days, with 1,960 series each; 78 pods in all",
		},
		{
			Name: "downsampled", Size: 100, Short: 3, Setup: 5,
			Holds: "2,000 series: 2 days raw, 14 days at 5 minutes and at 1 hour",
		},
		{
			Name: "histograms", Size: 2000, Short: 20, Setup: 4,
			Holds: "2 blocks of 2 hours with 2,000 native histograms each",
		},
		{
			Name: "crowded", Size: 10_000, Short: 40, Setup: 40, Start: 110, Slow: true,
			Holds: "10,000 blocks of 8 series",
		},
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
	unlock, err := m.lock(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // made by another process meanwhile
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
		return "", err
	}
	fmt.Fprintf(m.Progress, "made %s in %s\n", s.Name, time.Since(begin).Round(time.Second))
	return dir, nil
}

// lockInterval is how often a process that waits for another one's data set looks again.
const lockInterval = 500 * time.Millisecond

// lock waits until no other process makes data sets in the cache folder. The system releases the
// lock of a process that was killed.
func (m *Maker) lock(ctx context.Context) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(m.Cache, ".lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil // which releases it
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if !waited {
			fmt.Fprintf(
				m.Progress,
				"waiting for another process that makes data sets in %s\n",
				m.Cache,
			)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(lockInterval):
		}
	}
}
