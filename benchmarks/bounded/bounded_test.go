package main

import (
	"strings"
	"testing"
	"time"
)

// TestBounded is the short form of the command: a smaller block, a smaller limit, fewer requests.
// It does not check how fast small queries are, because that depends on the machine.
func TestBounded(t *testing.T) {
	c := config{
		values: 60_000, limit: 320 << 20, all: 12, beside: 2, within: 5 * time.Minute,
		first: time.Millisecond, rate: 10, quiet: 10,
	}
	if testing.Short() {
		c.values, c.limit, c.all, c.beside = 20_000, 256<<20, 4, 1
	}
	r, err := c.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	r.print(&table)
	t.Log(table.String())
	for _, err := range r.broken() {
		t.Error(err)
	}
}
