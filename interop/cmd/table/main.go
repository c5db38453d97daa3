// Command table turns the events of `go test -json` into the table of the neighbourhood: which system larder was proven with, by which
// tests, over what. It fails when a test failed, was skipped, or when a system has no test that passed, so that a table with every row is a
// proof and not a list of intentions.
//
// What a test compared it says itself, in log lines that begin with "proved: ".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// systems are the rows, each with the beginnings of the names of its tests. The first row that fits takes the test.
var systems = []struct {
	name  string
	tests []string
}{
	{"Store gateway", []string{"TestDifferential", "TestHarness", "TestDefects", "TestWhatThanos", "TestCompatibility"}},
	{"Prometheus", []string{"TestPrometheus"}},
	{"Sidecar", []string{"TestSidecar"}},
	{"Compactor", []string{"TestCompactor"}},
	{"Receiver", []string{"TestReceive"}},
	{"Ruler", []string{"TestRule"}},
	{"Query Gateway", []string{"TestQuer"}},
	{"Object storage", []string{"TestObjectStore"}},
	{"Security", []string{"TestMTLS"}},
	{"Metrics and mixin", []string{"TestMixin", "TestMetric"}},
	{"Tracing", []string{"TestTrac"}},
	{"HTTP", []string{"TestHTTP"}},
	{"Flags", []string{"TestFlags"}},
	{"Rollback", []string{"TestRollback"}},
}

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// row is what is known of a system.
type row struct {
	passed, failed, skipped []string
	took                    time.Duration
	proved                  []string
}

func main() {
	rows, rest, err := collect(os.Stdin, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
	if !print(os.Stdout, rows, rest) {
		os.Exit(1)
	}
}

// collect reads events. What tests print goes on to progress as it comes, so that a long run can be watched.
func collect(events io.Reader, progress io.Writer) (rows map[string]*row, rest *row, err error) {
	rows, rest = map[string]*row{}, &row{}
	in := bufio.NewScanner(events)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Fprintln(progress, in.Text()) // the go command's own words: a package that does not compile
			continue
		}
		if e.Action == "output" {
			fmt.Fprint(progress, e.Output)
		}
		r := rest
		if e.Test != "" {
			r = find(rows, rest, e.Test)
		}
		note(r, e)
	}
	return rows, rest, in.Err()
}

func find(rows map[string]*row, rest *row, test string) *row {
	for _, s := range systems {
		for _, prefix := range s.tests {
			if strings.HasPrefix(test, prefix) {
				if rows[s.name] == nil {
					rows[s.name] = &row{}
				}
				return rows[s.name]
			}
		}
	}
	return rest
}

func note(r *row, e event) {
	top := e.Test != "" && !strings.Contains(e.Test, "/")
	switch e.Action {
	case "pass":
		if top {
			r.passed = append(r.passed, e.Test)
			r.took += time.Duration(e.Elapsed * float64(time.Second))
		}
	case "fail":
		name := e.Test
		if name == "" {
			name = e.Package
		}
		r.failed = append(r.failed, name)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, e.Test)
		}
	case "output":
		if _, said, ok := strings.Cut(e.Output, "proved: "); ok {
			r.proved = append(r.proved, strings.TrimSpace(said))
		}
	}
}

// print writes the table and reports whether every system is proven and nothing failed.
func print(w io.Writer, rows map[string]*row, rest *row) bool {
	fmt.Fprintf(w, "\n%-18s %-6s %6s %7s  %s\n", "system", "result", "tests", "time", "proof")
	ok := len(rest.failed) == 0
	for _, s := range systems {
		r := rows[s.name]
		if r == nil {
			r = &row{}
		}
		result := "ok"
		switch {
		case len(r.failed) > 0:
			result, ok = "FAILED", false
		case len(r.skipped) > 0 || len(r.passed) == 0:
			result, ok = "MISSED", false
		}
		proofs := slices.Concat(r.failed, r.skipped, r.proved)
		if len(proofs) == 0 {
			proofs = r.passed
		}
		for i, p := range proofs {
			if i == 0 {
				fmt.Fprintf(w, "%-18s %-6s %6d %7s  %s\n", s.name, result, len(r.passed), r.took.Round(time.Second), p)
				continue
			}
			fmt.Fprintf(w, "%-18s %-6s %6s %7s  %s\n", "", "", "", "", p)
		}
		if len(proofs) == 0 {
			fmt.Fprintf(w, "%-18s %-6s %6d %7s  %s\n", s.name, result, 0, "", "no test ran")
		}
	}
	for _, f := range rest.failed {
		fmt.Fprintf(w, "%-18s %-6s %6s %7s  %s\n", "", "FAILED", "", "", f)
	}
	return ok
}
