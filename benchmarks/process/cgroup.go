package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup is a memory cgroup of one process. The methods of a nil one do nothing.
type cgroup struct{ dir string }

// removals is how often the removal of a cgroup is tried, because the kernel needs a moment to
// notice that the last process has ended.
const removals = 100

// makeCgroup makes a memory cgroup, of version 1 or 2. It returns nil if the user may not. The
// cgroup is inside the benchmark's own if that works, otherwise beside it.
func makeCgroup(limit int64) *cgroup {
	for _, v := range []struct{ root, controller, file string }{
		{"/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "", "memory.max"},
	} {
		for _, parent := range []string{filepath.Join(v.root, ownCgroup(v.controller)), v.root} {
			dir, err := os.MkdirTemp(parent, "larder-benchmark-")
			if err != nil {
				continue
			}
			text := []byte(strconv.FormatInt(limit, 10))
			if os.WriteFile(filepath.Join(dir, v.file), text, 0o644) == nil {
				return &cgroup{dir: dir}
			}
			_ = os.Remove(dir) // it is empty
		}
	}
	return nil
}

// ownCgroup returns the path of the benchmark's own cgroup below the root of a hierarchy. Version 2
// has no controllers in its line of /proc/self/cgroup.
func ownCgroup(controller string) string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == controller {
			return f[2]
		}
	}
	return ""
}

func (g *cgroup) procs() string { return filepath.Join(g.dir, "cgroup.procs") }

// peak returns the peak memory of the cgroup in bytes, page cache and kernel memory included. 0 =
// unknown.
func (g *cgroup) peak() int64 {
	if g == nil {
		return 0
	}
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if b, err := os.ReadFile(filepath.Join(g.dir, file)); err == nil {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64) // 0 if it is not a number
			return n
		}
	}
	return 0
}

// remove removes the cgroup after its process has ended.
func (g *cgroup) remove() (err error) {
	if g == nil {
		return nil
	}
	for range removals {
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove cgroup: %w", err)
}
