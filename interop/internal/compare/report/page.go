package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"larder/interop/internal/compare/dataset"
	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/workload"
)

// Page writes the queries and the results into the marked parts of a Markdown file, and the plots
// into the folder beside it that has its name. Results with a disk cache have a part of their own;
// a part without results in res stays as it is. first, unless nil, is an earlier run of the same,
// for the part about how the figures move.
func Page(name string, res, first *run.Results) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var queries, results, moves, withDisk bytes.Buffer
	header(&queries, []string{"query", "data set", "what a user does"})
	for _, q := range workload.All() {
		if q.Grows == "" {
			line(&queries, q.Name, q.Set, q.Meaning)
		}
	}
	fmt.Fprintln(&queries)
	header(&queries, []string{"data set", "what is in it"})
	for _, s := range dataset.All() {
		line(&queries, s.Name, s.Holds)
	}
	parts := map[string]string{"queries": queries.String()}
	if disk(&withDisk, res); withDisk.Len() > 0 {
		var head bytes.Buffer
		made(&head, res)
		parts["disk"] = head.String() + withDisk.String()
	}
	if tables(&results, res); results.Len() > 0 {
		var head bytes.Buffer
		made(&head, res)
		drawings, err := pictures(name, res)
		if err != nil {
			return err
		}
		parts["results"] = head.String() + results.String() + drawings
	}
	page := string(b)
	if first != nil {
		Moves(&moves, first, res)
		parts["moves"] = moves.String()
	}
	for part, text := range parts {
		if page, err = replace(page, part, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return os.WriteFile(name, []byte(page), 0o666)
}

// pictures writes the plots into the folder of a page, and returns the lines that show them.
func pictures(name string, res *run.Results) (string, error) {
	dir := strings.TrimSuffix(name, filepath.Ext(name))
	if err := Plots(dir, res); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("\n### Plots\n\n")
	for _, p := range plots(res) {
		fmt.Fprintf(&b, "![%s](%s/%s)\n\n", p.title, filepath.Base(dir), p.file)
	}
	return b.String(), nil
}

// replace puts a text between the marks of a part.
func replace(page, part, text string) (string, error) {
	begin, end := "<!-- "+part+":begin -->\n", "<!-- "+part+":end -->"
	before, rest, ok := strings.Cut(page, begin)
	if !ok {
		return "", fmt.Errorf("the page has no line %q", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("the page has no line %q", end)
	}
	return before + begin + text + end + after, nil
}
