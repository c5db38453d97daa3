// Command table turns the events of `go test -json` into a table: with which system larder was
// tested, by which tests, and over what. It fails if a test failed or was skipped, or if a system
// has no test that passed. Therefore a complete table is a proof.
//
// Tests report what they compared in log lines that begin with "proved: ". A line counts once its
// test has passed.
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

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// row is what is known about a system.
type row struct {
	passed, failed, skipped []string
	took                    time.Duration
	proved                  []string
}

// table is the result of all events.
type table struct {
	rows map[string]*row // by system; "" has what belongs to none
	// claims are the "proved: " lines of running tests, by package and test.
	claims map[[2]string][]string
}

func main() {
	t, err := collect(os.Stdin, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
	if !t.print(os.Stdout) {
		os.Exit(1)
	}
}

// collect reads events. It copies the output of tests to progress as it arrives, so that a long run
// can be watched.
func collect(events io.Reader, progress io.Writer) (*table, error) {
	t := &table{rows: map[string]*row{"": {}}, claims: map[[2]string][]string{}}
	for _, s := range systems() {
		t.rows[s.name] = &row{}
	}
	in := bufio.NewScanner(events)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Fprintln(progress, in.Text()) // the go command's own words
			continue
		}
		if e.Action == "output" || e.Action == "build-output" {
			fmt.Fprint(progress, e.Output)
		}
		t.note(e)
	}
	return t, in.Err()
}

func (t *table) note(e event) {
	r := t.rows[systemOf(e.Package, e.Test)]
	top, _, sub := strings.Cut(e.Test, "/")
	switch e.Action {
	case "output":
		if _, said, ok := strings.Cut(e.Output, "proved: "); ok {
			of := [2]string{e.Package, top}
			t.claims[of] = append(t.claims[of], strings.TrimSpace(said))
		}
	case "pass":
		if e.Test != "" && !sub {
			r.passed = append(r.passed, e.Test)
			r.took += time.Duration(e.Elapsed * float64(time.Second))
			r.proved = append(r.proved, t.claims[[2]string{e.Package, top}]...)
		}
	case "fail":
		name := e.Test
		if name == "" {
			// a package also fails when it does not compile, or runs out of time
			name, r = e.Package, t.rows[""]
		}
		r.failed = append(r.failed, name)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, e.Test)
		}
	}
}

// print writes the table and reports whether every system is proven and nothing failed.
func (t *table) print(w io.Writer) (ok bool) {
	const line = "%-18s %-6s %6s %7s  %s\n"
	fmt.Fprintln(w)
	fmt.Fprintf(w, line, "system", "result", "tests", "time", "proof")
	ok = true
	for _, s := range systems() {
		r := t.rows[s.name]
		result := "ok"
		proofs := slices.Concat(r.failed, r.skipped, r.proved)
		switch {
		case len(r.failed) > 0:
			result, ok = "FAILED", false
		case len(r.skipped) > 0 || len(r.passed) == 0:
			result, ok = "MISSED", false
		}
		if len(proofs) == 0 {
			proofs = r.passed
		}
		if len(proofs) == 0 {
			proofs = []string{"no test ran"}
		}
		fmt.Fprintf(
			w, line, s.name, result, fmt.Sprint(len(r.passed)), r.took.Round(time.Second),
			proofs[0],
		)
		for _, p := range proofs[1:] {
			fmt.Fprintf(w, line, "", "", "", "", p)
		}
	}
	rest := t.rows[""]
	for _, name := range rest.failed {
		fmt.Fprintf(w, line, "", "FAILED", "", "", name)
	}
	for _, name := range rest.skipped {
		fmt.Fprintf(w, line, "", "MISSED", "", "", name)
	}
	return ok && len(rest.failed)+len(rest.skipped) == 0
}
