package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMemoryTable compares the table in docs/memory.md with what Fit computes for its limits.
func TestMemoryTable(t *testing.T) {
	doc, err := os.ReadFile("../../docs/memory.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, begin := strings.Cut(string(doc), "<!-- memory: begin -->\n")
	table, _, end := strings.Cut(table, "<!-- memory: end -->\n")
	if !begin || !end {
		t.Fatal("docs/memory.md has no table between its marks")
	}
	want := "| container | limit | index pages | expanded postings | series sets | chunk pages " +
		"| header blocks | requests | together | kept free | one request |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n"
	for _, container := range []int64{gib / 4, gib, 2 * gib, 4 * gib, 16 * gib, 0} {
		var m Memory
		limit := int64(float64(container) * 0.9) // --auto-gomemlimit.ratio
		if _, err := m.Fit(limit); err != nil {
			t.Fatal(err)
		}
		parts := append(m.CacheBytes[:], m.Requests.Bytes)
		row := "| none | |"
		if limit > 0 {
			size := wholeMiB(container).String()
			size = strings.NewReplacer("GiB", " GiB", "MiB", " MiB").Replace(size)
			row = fmt.Sprintf("| %s | %d |", size, limit/mib)
		}
		together := int64(0)
		for _, n := range parts {
			together += n
			row += fmt.Sprintf(" %d |", n/mib)
		}
		row += fmt.Sprintf(" %d |", together/mib)
		if limit > 0 {
			row += fmt.Sprintf(" %d", (limit-together)/mib)
		}
		want += row + fmt.Sprintf(" | %d |\n", oneRequest(&m)/mib)
		if limit == 0 {
			others := (m.sum() - together) / mib
			saysIn(t, string(doc), fmt.Sprintf("%d MiB for caches and requests", together/mib))
			saysIn(t, string(doc), fmt.Sprintf("documents may add %d MiB", others))
			saysIn(t, string(doc), fmt.Sprintf("the %d MiB exceed", m.sum()/mib))
			continue
		}
		if container == 4*gib {
			saysIn(t, string(doc), fmt.Sprintf("In a container of 4 GiB, the rest is %d MiB",
				(limit-together-limit/4-m.Documents)/mib))
		}
		if free := limit - together; free < limit/4 {
			t.Errorf("of %d MiB %d are kept free, less than a quarter", limit/mib, free/mib)
		}
		other := m.Headers + m.Builds + 2*m.InFlight + m.Documents +
			2*m.Messages() + m.HalfReceived()
		if free := limit - together; other > free {
			t.Errorf("open headers, builds, reads on their way, documents, messages and an "+
				"expression that is compiled take %d MiB of the %d that are kept free",
				other/mib, free/mib)
		}
	}
	var m Memory
	if _, err := m.Fit(gib * 9 / 10); err != nil {
		t.Fatal(err)
	}
	saysIn(t, string(doc), fmt.Sprintf("%d MiB of the %d in a container of 1 GiB",
		oneRequest(&m)/mib, m.Requests.Bytes/mib))
	if table != want {
		t.Errorf("the table says\n%s\nwant\n%s", table, want)
	}
}

// oneRequest returns how many bytes a single request may reserve.
func oneRequest(m *Memory) int64 {
	running := m.Requests.Bytes - m.Expansions() - m.Messages()
	return running - min(running/8, 64*mib)
}

// saysIn checks that the text of docs/memory.md has a phrase, whatever its line breaks.
func saysIn(t *testing.T, doc, phrase string) {
	t.Helper()
	if !strings.Contains(strings.Join(strings.Fields(doc), " "), phrase) {
		t.Errorf("docs/memory.md does not say %q", phrase)
	}
}
