package run

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes the processor.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if _, name, ok := strings.Cut(line, "model name\t: "); ok {
				model = strings.TrimSpace(name)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s, %s", runtime.NumCPU(), model, runtime.Version())
}

// cpuTime is CPU time that was used, and the wall time at which this was read.
type cpuTime struct {
	machine time.Duration // of all processes, and time that the hypervisor took away
	own     time.Duration // of this process and of ended processes that it started
	at      time.Time
}

// tick is the unit of /proc/stat, which the kernel fixes for user space.
const tick = 10 * time.Millisecond

// clock reads the CPU time that was used so far; zero if the system does not report it.
func clock() cpuTime {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}
	}
	var user, nice, system, idle, wait, irq, softIRQ, steal int64
	if _, err := fmt.Sscanf(
		string(b), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq,
		&softIRQ, &steal,
	); err != nil {
		return cpuTime{}
	}
	c := cpuTime{
		machine: time.Duration(user+nice+system+irq+softIRQ+steal) * tick, at: time.Now(),
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return cpuTime{}
		}
		c.own += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return c
}

// others returns the part of the machine's CPU time since before that other processes used.
func (c cpuTime) others(before cpuTime) float64 {
	if c.at.IsZero() || before.at.IsZero() {
		return 0
	}
	all := time.Duration(runtime.NumCPU()) * c.at.Sub(before.at)
	used := c.machine - before.machine - (c.own - before.own)
	return max(float64(used)/float64(all), 0)
}

// commit describes the commit that larder is built from; empty outside a git repository. Changed
// pages, such as the one that an earlier run has written, do not count.
func commit(ctx context.Context, root string) string {
	git := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = root
		return cmd.Output()
	}
	out, err := git("describe", "--always")
	if err != nil {
		return ""
	}
	name := strings.TrimSpace(string(out))
	if _, err := git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs"); err != nil {
		name += "-dirty"
	}
	return name
}
