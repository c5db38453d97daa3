package interop

import (
	"os"
	"strings"
	"testing"

	"larder/interop/internal/allowed"
)

// TestCompatibilityDocument checks docs/compatibility.md against allowed_differences.yaml:
// operators read exactly what the comparison accepts. With INTEROP_REWRITE it rewrites that part of
// the document.
func TestCompatibilityDocument(t *testing.T) {
	const name = "../docs/compatibility.md"
	const begin, end = "<!-- allowed differences: begin -->\n",
		"<!-- allowed differences: end -->\n"
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf(
			"%s lacks the lines %q and %q", name, strings.TrimSpace(begin), strings.TrimSpace(end),
		)
	}
	want := list.Document()
	if got == want {
		t.Log("proved: docs/compatibility.md has every allowed difference, word for word")
		return
	}
	if os.Getenv("INTEROP_REWRITE") == "" {
		t.Fatalf(
			"%s is not what allowed_differences.yaml says: run this test with INTEROP_REWRITE=1\ngot:\n%s\nwant:\n%s",
			name, got, want,
		)
	}
	if err := os.WriteFile(name, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
