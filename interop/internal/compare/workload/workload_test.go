package workload_test

import (
	"testing"

	"larder/interop/internal/compare/dataset"
	"larder/interop/internal/compare/workload"
)

// TestQueries checks that every query can be sent, has a name of its own and asks a data set that
// exists.
func TestQueries(t *testing.T) {
	seen := map[string]bool{}
	for _, q := range workload.All() {
		if seen[q.Name] {
			t.Errorf("two queries are called %s", q.Name)
		}
		seen[q.Name] = true
		if _, err := dataset.ByName(q.Set); err != nil {
			t.Errorf("%s: %v", q.Name, err)
		}
		if c, err := q.Call(); err != nil || len(c.Request) == 0 {
			t.Errorf("%s: request of %d bytes: %v", q.Name, len(c.Request), err)
		}
		if q.Meaning == "" {
			t.Errorf("%s does not say what it means to a user", q.Name)
		}
	}
}
