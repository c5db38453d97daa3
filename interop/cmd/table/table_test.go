package main

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stream writes events as go test does: a test of every system that proves something and passes,
// then the changes.
func stream(t *testing.T, changes ...event) io.Reader {
	t.Helper()
	var b strings.Builder
	out := json.NewEncoder(&b)
	var events []event
	for _, s := range systems() {
		e := event{
			Package: strings.TrimSuffix(module+"/"+s.tests.pkg, "/"),
			Test:    "TestAnything",
			Elapsed: 2,
		}
		if len(s.tests.prefixes) > 0 {
			e.Test = s.tests.prefixes[0] + "Anything"
		}
		part := e
		part.Test += "/part"
		run, said, partPassed, passed := e, part, part, e
		run.Action, partPassed.Action, passed.Action = "run", "pass", "pass"
		said.Action, said.Output = "output", "    x_test.go:1: proved: "+s.name+" as it is\n"
		events = append(events, run, said, partPassed, passed)
	}
	for _, e := range append(events, changes...) {
		if err := out.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return strings.NewReader(b.String())
}

func printed(t *testing.T, events io.Reader) (text string, ok bool) {
	t.Helper()
	got, err := collect(events, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	ok = got.print(&b)
	return b.String(), ok
}

func TestComplete(t *testing.T) {
	text, ok := printed(t, stream(t))
	if !ok {
		t.Errorf("everything passed, but the table fails:\n%s", text)
	}
	for _, s := range systems() {
		if !regexp.MustCompile(`(?m)^` + s.name + ` +ok +1 +2s  ` + s.name + ` as it is$`).
			MatchString(text) {
			t.Errorf("no row %q in\n%s", s.name, text)
		}
	}
}

// TestIncomplete: the table shows what did not run or failed, and the command fails.
func TestIncomplete(t *testing.T) {
	for _, c := range []struct {
		name   string
		events io.Reader
		want   string
	}{
		{"nothing", strings.NewReader("go: cannot find the module\n"),
			`Flags +MISSED +0 +0s  no test ran`},
		{"a failure", stream(t, event{Action: "fail", Package: module + "/web", Test: "TestOther"}),
			`HTTP +FAILED +1 +2s  TestOther`},
		{"a failed part",
			stream(t, event{Action: "fail", Package: module + "/flags", Test: "TestOther/part"}),
			`Flags +FAILED +1 +2s  TestOther/part`},
		{"a skipped test",
			stream(t, event{Action: "skip", Package: module + "/promql",
				Test: "TestPrometheusOther"}), `Prometheus +MISSED +1 +2s  TestPrometheusOther`},
		{"a tool's test",
			stream(t, event{Action: "fail", Package: module + "/internal/x", Test: "TestRules"}),
			`FAILED +TestRules`},
		{"a package that does not compile",
			stream(t, event{Action: "fail", Package: module + "/writers"}),
			`FAILED +larder/interop/writers`},
	} {
		text, ok := printed(t, c.events)
		if ok || !regexp.MustCompile(`(?m)^ *`+c.want+`$`).MatchString(text) {
			t.Errorf("%s: ok is %v, want %s in\n%s", c.name, ok, c.want, text)
		}
	}
	claim := event{
		Action:  "output",
		Package: module + "/web",
		Test:    "TestOther",
		Output:  "x.go:1: proved: too much\n",
	}
	failed := event{Action: "fail", Package: module + "/web", Test: "TestOther"}
	if text, _ := printed(t, stream(t, claim, failed)); strings.Contains(text, "too much") {
		t.Errorf("the table contains the claim of a failed test:\n%s", text)
	}
}

// TestEveryTestHasARow reads the sources: each test belongs to a system, and each system has tests.
func TestEveryTestHasARow(t *testing.T) {
	root := filepath.Join("..", "..")
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	found := map[string]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch name = filepath.ToSlash(name); {
		case d.IsDir() && (name == "internal" || name == "cmd" || name == "servers"):
			return fs.SkipDir
		case d.IsDir() && name == "chart": // a module of its own
			return fs.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg := strings.TrimSuffix(
			module+"/"+strings.TrimPrefix(filepath.ToSlash(filepath.Dir(name)), "."), "/",
		)
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			s := systemOf(pkg, m[1])
			if s == "" {
				t.Errorf("%s: %s belongs to no row of the table", name, m[1])
			}
			found[s]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range systems() {
		if found[s.name] == 0 {
			t.Errorf("%s has no test", s.name)
		}
	}
}
