package admission

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func may(*waiter) bool { return true }

// TestFairQueueSharesByWeight: tenants that always wait get cost in proportion to their weights. No
// two are further apart than two turns of each: one by start and one by age.
func TestFairQueueSharesByWeight(t *testing.T) {
	for seed := range schedules(t, 400) {
		r := rand.New(rand.NewPCG(seed, 3))
		var q fairQueue
		age := uint64(0)
		push := func(tenant int, weight float64) {
			age++
			q.push(&waiter{
				tenant:  fmt.Sprint(tenant),
				weight:  weight,
				cost:    1 + float64(r.IntN(100)),
				arrival: age,
			})
		}
		weights := make([]float64, 2+r.IntN(3))
		for i := range weights {
			weights[i] = 1 + 3*r.Float64()
			for range 1 + r.IntN(5) {
				push(i, weights[i])
			}
		}
		got := make([]float64, len(weights))
		for n := range 2000 {
			w := q.next(may, none)
			if again := q.next(may, none); again != w {
				t.Fatalf("seed %d: a turn was %s's and is %s's", seed, w.tenant, again.tenant)
			}
			var i int
			_, _ = fmt.Sscan(w.tenant, &i)
			push(i, weights[i]) // the number of its waiting requests stays the same
			q.grant(w)
			got[i] += w.cost / w.weight
			for a := range weights {
				for b := range weights {
					if most := 200/weights[a] + 200/weights[b]; got[a]-got[b] > most {
						t.Fatalf(
							"seed %d, grant %d: tenant %d has had %.1f by weight, %d %.1f: more than %.1f apart",
							seed,
							n,
							a,
							got[a],
							b,
							got[b],
							most,
						)
					}
				}
			}
		}
	}
}

// TestFairQueueFirstComeFirstServed: within a tenant, and between new tenants.
func TestFairQueueFirstComeFirstServed(t *testing.T) {
	var q fairQueue
	last := map[string]uint64{}
	r := rand.New(rand.NewPCG(1, 4))
	for age := range uint64(5000) {
		q.push(&waiter{tenant: fmt.Sprint(r.IntN(5)), weight: 1, cost: 1, arrival: age + 1})
		if r.IntN(4) == 0 {
			continue
		}
		w := q.next(may, none)
		q.grant(w)
		if w.arrival < last[w.tenant] {
			t.Fatalf("tenant %s: request %d after %d", w.tenant, w.arrival, last[w.tenant])
		}
		last[w.tenant] = w.arrival
	}
	var fresh fairQueue
	for age := range uint64(100) {
		fresh.push(&waiter{tenant: fmt.Sprint(100 - age), weight: 1, cost: 1, arrival: age})
	}
	for age := range uint64(100) {
		if w := fresh.next(may, none); w.arrival != age {
			t.Fatalf("tenants that come new: request %d before %d", w.arrival, age)
		} else {
			fresh.grant(w)
		}
	}
}

// TestFairQueueOneRequestBesideThousands: the single request of a tenant goes next, or after the
// request that is already up next.
func TestFairQueueOneRequestBesideThousands(t *testing.T) {
	var q fairQueue
	age := uint64(0)
	push := func(tenant string) *waiter {
		age++
		w := &waiter{tenant: tenant, weight: 1, cost: 1, arrival: age}
		q.push(w)
		return w
	}
	for range 1000 {
		push("crowd")
	}
	for range 100 {
		for range 3 {
			q.grant(q.next(may, none))
		}
		q.next(may, none)
		one := push("one")
		for grants := 0; one.flow != nil; grants++ {
			if grants > 2 {
				t.Fatalf("the request of another tenant still waits after %d grants", grants)
			}
			q.grant(q.next(may, none))
		}
	}
}

// TestFairQueueStarvesNoTenant checks that neither new tenants nor tenants that may run delay a
// request for ever.
func TestFairQueueStarvesNoTenant(t *testing.T) {
	var q fairQueue
	age := uint64(0)
	push := func(tenant string, cost float64) *waiter {
		age++
		w := &waiter{tenant: tenant, weight: 1, cost: cost, arrival: age}
		q.push(w)
		return w
	}
	for range 20 {
		push("busy", 10)
	}
	for range 5 {
		q.grant(q.next(may, none))
	}
	last := push("busy", 10)
	grants := 0
	for ; last.flow != nil && grants < 1000; grants++ {
		for range 3 {
			push(fmt.Sprint(age), 1) // a name for each request
		}
		q.grant(q.next(may, none))
	}
	if last.flow != nil {
		t.Errorf("a tenant's request waits after %d grants to new tenants", grants)
	}

	// A request that is up next stays so, even if others arrive with an earlier start.
	var kept fairQueue
	q = kept
	for range 3 {
		push("a", 50)
	}
	push("b", 50)
	q.grant(q.next(may, none))
	q.grant(q.next(may, none))
	turn := q.next(may, none)
	push("c", 1)
	if got := q.next(may, none); got != turn {
		t.Errorf("the turn was %s's and is %s's", turn.tenant, got.tenant)
	}
	// Unless its limits forbid it to run.
	if got := q.next(func(w *waiter) bool { return w.tenant != turn.tenant }, none); got == nil ||
		got.tenant == turn.tenant {
		t.Errorf("no other tenant is up next while %s may not run", turn.tenant)
	}
}

// TestFairQueueForgets: tenant names use no memory once no request waits, and little while some
// wait.
func TestFairQueueForgets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 5))
	var q fairQueue
	var waiting []*waiter
	for n := range 100_000 {
		w := &waiter{
			tenant:  fmt.Sprint(n),
			weight:  0.01,
			cost:    1e6 * r.Float64(),
			arrival: uint64(n),
		}
		q.push(w)
		waiting = append(waiting, w)
		for len(waiting) > 1+r.IntN(50) {
			i := r.IntN(len(waiting))
			if w := waiting[i]; r.IntN(2) == 0 {
				q.remove(w)
			} else {
				q.grant(w)
			}
			waiting[i] = waiting[len(waiting)-1]
			waiting = waiting[:len(waiting)-1]
		}
		if len(q.flows) > 2*51+idleFlows || len(q.busy) != len(waiting) || q.len != len(waiting) {
			t.Fatalf("%d wait: %d tenants are known, %d wait, %d requests",
				len(waiting), len(q.flows), len(q.busy), q.len)
		}
	}
	for _, w := range waiting {
		q.remove(w)
	}
	if len(q.flows) != 0 || len(q.busy) != 0 || q.len != 0 || q.upNext != nil ||
		q.virtualTime != 0 {
		t.Errorf("left behind: %d tenants, %d that wait, %d requests",
			len(q.flows), len(q.busy), q.len)
	}
}

// none passes over no waiter.
func none(*waiter) bool { return false }
