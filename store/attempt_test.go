package store

import (
	"testing"

	"larder/store/admission"
	"larder/store/catalog"
)

// TestAttemptStates checks the transitions of an attempt: whether a plan counts as repeated, after
// which series the answer continues, and with which blocks.
func TestAttemptStates(t *testing.T) {
	replacement := &catalog.Block{}
	const none = "no series"
	for _, tc := range []struct {
		name     string
		steps    func(a *attempt)
		repeated bool
		after    string
		blocks   []*catalog.Block
	}{
		{name: "first", steps: func(*attempt) {}, after: none},
		{name: "next", steps: func(a *attempt) { a.next() }, repeated: true, after: none},
		{name: "a series without labels", repeated: true, after: "",
			steps: func(a *attempt) { a.wrote(nil); a.next() }},
		{name: "several windows", repeated: true, after: "b",
			steps: func(a *attempt) { a.wrote([]byte("aa")); a.wrote([]byte("b")); a.next() }},
		{name: "replaced before the first series", repeated: true, after: none,
			steps: func(a *attempt) { a.resume([]*catalog.Block{replacement}); a.next() }},
		{name: "replaced after a series", repeated: true, after: "a",
			blocks: []*catalog.Block{replacement},
			steps: func(a *attempt) {
				a.wrote([]byte("a"))
				a.resume([]*catalog.Block{replacement})
				a.next()
			}},
		{name: "discarded", repeated: true, after: none,
			steps: func(a *attempt) { a.wrote([]byte("a")); a.restart(); a.next() }},
		{name: "discarded with replacements", repeated: true, after: none,
			blocks: []*catalog.Block{replacement},
			steps: func(a *attempt) {
				a.wrote([]byte("a"))
				a.resume([]*catalog.Block{replacement})
				a.next()
				a.restart()
			}},
		{name: "discarded, then replaced", repeated: true, after: none,
			steps: func(a *attempt) {
				a.wrote([]byte("a"))
				a.restart()
				a.resume([]*catalog.Block{replacement})
				a.next()
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &attempt{}
			tc.steps(a)
			after := none
			if b := a.after(); b != nil {
				after = string(b)
			}
			if a.repeated() != tc.repeated || after != tc.after {
				t.Errorf("repeated %v, after %q; want %v and %q",
					a.repeated(), after, tc.repeated, tc.after)
			}
			if len(a.blocks) != len(tc.blocks) || len(a.blocks) > 0 && a.blocks[0] != replacement {
				t.Errorf("blocks %p, want %p", a.blocks, tc.blocks)
			}
		})
	}
}

// TestAttemptMinimum checks how much an attempt reserves after an earlier one lacked bytes, and
// that bytes beyond the estimate are used before more are reserved.
func TestAttemptMinimum(t *testing.T) {
	a := &attempt{}
	a.raise(&admission.MustWait{Need: 50})
	if n := a.settle(10); n != 10 {
		t.Errorf("reserves %d although only the estimate was too large, want 10", n)
	}
	a.raise(&admission.MustWait{Need: 50, BeyondEstimate: true})
	if n := a.settle(30); n != 50 {
		t.Errorf("reserves %d, want the 50 that an earlier attempt needed", n)
	}
	for _, step := range []struct{ take, missing int64 }{{15, 0}, {15, 10}, {5, 5}} {
		if n := a.reserveSpare(step.take); n != step.missing {
			t.Errorf("takes %d and misses %d, want %d", step.take, n, step.missing)
		}
	}
	a.releaseSpare(5)
	if n := a.reserveSpare(5); n != 0 {
		t.Errorf("misses %d of 5 bytes that were returned", n)
	}
	if n := a.settle(60); n != 60 || a.reserveSpare(1) != 1 {
		t.Errorf("reserves %d for an estimate of 60, or has spare bytes beyond it", n)
	}
}
