package process

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestAChild: a child keeps and passes on its log, has the given umask and environment, and reports
// its end.
func TestAChild(t *testing.T) {
	var seen []string
	c, err := Start(Options{
		Name: "a shell", Umask: "0077", Env: []string{"OF_THE_TEST=yes"},
		OnLine: func(line string) { seen = append(seen, line) },
	}, "sh", "-c", `umask; echo "$OF_THE_TEST $1"; exit 3`, "sh", "an argument")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Wait(t.Context(), func(context.Context) bool { return false })
	if !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want that it has ended with 3", err)
	}
	if got, want := c.Tail(), "0077\nyes an argument"; got != want ||
		strings.Join(seen, "\n") != want {
		t.Errorf("got the log %q and the lines %q, want %q", got, seen, want)
	}
	if _, err := c.Usage(); err == nil || !c.Ended() {
		t.Errorf("an ended process reports its memory: %v", err)
	}
}

// TestMemoryOfAChild: the memory of a child is known while it runs, and a cgroup ends a child that
// exceeds its limit. If no cgroup can be made the child runs without one.
func TestMemoryOfAChild(t *testing.T) {
	const limit = 64 << 20
	started := make(chan struct{})
	c, err := Start(Options{Name: "a shell", Limit: limit, OnLine: func(string) { close(started) }},
		"sh", "-c", "echo started; exec sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	<-started
	u, err := c.Usage()
	if err != nil || u.Resident <= 0 || u.Peak < u.Resident || u.Threads != 1 {
		t.Errorf("got %+v, %v", u, err)
	}
	c.Kill()
	if c.Err() == nil {
		t.Error("the process was killed but ended without an error")
	}
	if !c.InCgroup() {
		return
	}
	if _, err := os.Stat(c.group.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup still exists: %v", err)
	}
	// tail keeps a line without an end in memory.
	c, err = Start(Options{Name: "tail", Limit: limit}, "sh", "-c",
		"head -c 256M /dev/zero | exec tail -n 1 >/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.Err() == nil || c.CgroupPeak() > limit || c.CgroupPeak() < limit/2 {
		t.Errorf("got %v with a peak of %d, want that it was killed at %d", c.Err(),
			c.CgroupPeak(), limit)
	}
}
