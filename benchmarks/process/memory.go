package process

import (
	"fmt"
	"os"
	"strings"
)

// Usage is the memory that a process uses now.
type Usage struct {
	// Resident is the resident memory, Peak its maximum so far, in bytes.
	Resident, Peak int64
	Threads        int64
}

// Usage reads the memory of the process. It fails if the process has ended.
func (c *Child) Usage() (u Usage, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid()))
	if err != nil {
		return u, err
	}
	field := func(name string) (n int64) {
		if _, rest, ok := strings.Cut(string(b), "\n"+name+":"); ok {
			_, _ = fmt.Sscan(rest, &n) // 0 if it is not a number
		}
		return n
	}
	u = Usage{Resident: field("VmRSS") << 10, Peak: field("VmHWM") << 10, Threads: field("Threads")}
	if u.Peak == 0 {
		return u, fmt.Errorf("%s has ended:\n%s", c.name, c.Tail())
	}
	return u, nil
}

// InCgroup reports whether a cgroup limits the memory of the process.
func (c *Child) InCgroup() bool { return c.group != nil }

// CgroupPeak returns the peak memory of the cgroup in bytes, page cache and kernel memory included.
// It is still known after the process has ended. 0 = unknown.
func (c *Child) CgroupPeak() int64 {
	if c.Ended() {
		return c.inPeak
	}
	return c.group.peak()
}
