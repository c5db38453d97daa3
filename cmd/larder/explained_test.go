package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// explainedRow is a row of a table that says what something means and what to do about it.
type explainedRow struct {
	names  []string // without labels; one with an asterisk stands for all that begin with it
	cells  []string
	prefix string // of the names, from the paragraph before the table; "" for none
}

var (
	quoted = regexp.MustCompile("`([^`]+)`")
	// tablePrefix ends the paragraph before a table whose names lack it.
	tablePrefix = regexp.MustCompile("`([a-z_]+_)\\*[^`]*`")
)

// explainedRows returns the rows of the tables of a page whose last column is "what to do".
func explainedRows(t *testing.T, page string) (rows []explainedRow) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	prefix, inside, columns := "", false, 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			if m := tablePrefix.FindStringSubmatch(line); m != nil && strings.HasSuffix(line, ":") {
				prefix = m[1]
			} else if line != "" {
				prefix = ""
			}
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), " | ") {
			cells = append(cells, strings.TrimSpace(c))
		}
		switch {
		case strings.HasPrefix(cells[len(cells)-1], "what to do"):
			inside, columns = true, len(cells)
		case !inside || strings.HasPrefix(cells[0], "---"):
		default:
			if len(cells) != columns || slices.Contains(cells, "") {
				t.Errorf("docs/%s: a row without an answer: %s", page, line)
				continue
			}
			row := explainedRow{cells: cells, prefix: prefix}
			for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
				name, _, _ := strings.Cut(m[1], "{")
				row.names = append(row.names, name)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// explains returns whether a row is about a name.
func (r *explainedRow) explains(name string) bool {
	return slices.ContainsFunc(r.names, func(n string) bool {
		begin, many := strings.CutSuffix(r.prefix+n, "*")
		return name == begin || many && strings.HasPrefix(name, begin)
	})
}

// checkExplained checks that a page says of each name what it means and what to do.
func checkExplained(t *testing.T, page string, names []string) {
	t.Helper()
	rows := explainedRows(t, page)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !slices.ContainsFunc(rows, func(r explainedRow) bool { return r.explains(name) }) {
			t.Errorf("docs/%s does not say what to do about %s", page, name)
		}
	}
}

// TestFieldsAreExplained: docs/observability.md says what each field of the lines of slow
// requests means, and what to do.
func TestFieldsAreExplained(t *testing.T) {
	p := startProcess(t, folder(wideBucket(t)), "--log.format=json",
		"--store.log-requests-longer-than=1ns",
		"--latency-budgets={requests: {series: {total: 1ns}}}",
		"--store.limits.request-series=5000", "--drain-delay=0s")
	p.await("readiness changed")
	if err := everyRPC(t.Context(), p.rpc, "kitchen"); err != nil {
		t.Fatal(err)
	}
	p.stop()
	fields, methods := map[string]bool{}, map[string]bool{}
	for _, line := range p.seen {
		var f map[string]any
		if err := json.Unmarshal([]byte(line), &f); err != nil || f["msg"] != "slow request" {
			continue
		}
		methods[fmt.Sprint(f["method"])] = true
		for k, v := range f {
			fields[k] = true
			_, isText := v.(string)
			isTime := strings.HasPrefix(k, "stage_") || strings.HasSuffix(k, "_wait") ||
				k == "duration" || k == "first_frame"
			if isText && isTime {
				t.Errorf("%s is a text: %v", k, v)
			}
		}
	}
	for _, k := range []string{"ts", "level", "msg"} { // of all lines
		delete(fields, k)
	}
	if len(methods) != 3 || !fields["over_budget"] || len(fields) < 40 {
		t.Errorf("methods %v, fields %v", methods, fields)
	}
	checkExplained(t, "observability.md", slices.Sorted(maps.Keys(fields)))
}
