package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// MemoryLimit returns the memory limit of the process in bytes, 0 for none. It is GOMEMLIMIT, or
// else the limit of the container. If auto is set and the environment has no GOMEMLIMIT,
// MemoryLimit first sets the limit of the Go runtime to the ratio of the container's limit.
//
// If the container's limit cannot be read, it returns an error and 0.
func MemoryLimit(auto bool, ratio float64) (int64, error) {
	container, err := memlimit.FromCgroup()
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup),
		errors.Is(err, memlimit.ErrCgroupsNotSupported):
		container = 0
	case err != nil:
		return 0, fmt.Errorf("memory limit of the container: %w", err)
	}
	_, byEnv := os.LookupEnv("GOMEMLIMIT")
	if auto && !byEnv && container > 0 && container < math.MaxInt64 {
		debug.SetMemoryLimit(int64(float64(container) * ratio))
	}
	if l := debug.SetMemoryLimit(-1); l < math.MaxInt64 {
		return l, nil
	}
	if container >= math.MaxInt64 {
		return 0, nil
	}
	return int64(container), nil
}

// MachineMemory returns the memory of the machine in bytes, 0 if it is not known.
func MachineMemory() int64 {
	n, err := memlimit.FromSystem()
	if err != nil || n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}
