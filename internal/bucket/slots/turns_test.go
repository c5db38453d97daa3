package slots

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestTurnsAreFair: while a tenant waits for its turn, no other has two. The same holds for the
// requests of a tenant. The places of a request keep their order, and no place is lost.
func TestTurnsAreFair(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var owners []*Owner
		for i := range 12 {
			owners = append(owners, &Owner{tenant: fmt.Sprint(i % 4), request: new(byte)})
		}
		var (
			q       turns
			waiting []*place
			number  = map[*place]int{} // of its arrival
			// overtaken has, by whose waits, how often each other was served since its last turn.
			tenants  = map[string]map[string]int{}
			requests = map[*Owner]map[*Owner]int{}
		)
		for step := range 3000 {
			switch n := rnd.IntN(10); {
			case n < 5 && len(waiting) < 200:
				p := &place{owner: owners[rnd.IntN(len(owners))]}
				number[p] = step
				q.push(p)
				waiting = append(waiting, p)
				if tenants[p.owner.tenant] == nil {
					tenants[p.owner.tenant] = map[string]int{}
				}
				if requests[p.owner] == nil {
					requests[p.owner] = map[*Owner]int{}
				}
			case n < 7 && len(waiting) > 0:
				i := rnd.IntN(len(waiting))
				q.remove(waiting[i])
				waiting = append(waiting[:i], waiting[i+1:]...)
			case len(waiting) > 0:
				p := q.first()
				q.next()
				delete(tenants, p.owner.tenant)
				delete(requests, p.owner)
				for i, o := range waiting {
					if o == p {
						waiting = append(waiting[:i], waiting[i+1:]...)
						break
					}
				}
				for _, o := range waiting {
					if o.owner == p.owner && number[o] < number[p] {
						t.Fatalf("seed %d: a place overtook another of its request", seed)
					}
				}
				for tenant, others := range tenants {
					if others[p.owner.tenant]++; others[p.owner.tenant] > 1 {
						t.Fatalf("seed %d: tenant %s waits while %s has a second turn",
							seed, tenant, p.owner.tenant)
					}
				}
				for owner, others := range requests {
					if owner.tenant != p.owner.tenant {
						continue
					}
					if others[p.owner]++; others[p.owner] > 1 {
						t.Fatalf("seed %d: a request waits while another has a second turn", seed)
					}
				}
			}
			// Those that still wait are counted, the others start again.
			still, stillTenants := map[*Owner]bool{}, map[string]bool{}
			for _, p := range waiting {
				still[p.owner], stillTenants[p.owner.tenant] = true, true
			}
			for o := range still {
				if requests[o] == nil {
					requests[o] = map[*Owner]int{}
				}
				if tenants[o.tenant] == nil {
					tenants[o.tenant] = map[string]int{}
				}
			}
			for o := range requests {
				if !still[o] {
					delete(requests, o)
				}
			}
			for tenant := range tenants {
				if !stillTenants[tenant] {
					delete(tenants, tenant)
				}
			}
			if q.len != len(waiting) || len(q.tenants.byKey) != len(stillTenants) {
				t.Fatalf("seed %d: %d places of %d tenants, want %d of %d",
					seed, q.len, len(q.tenants.byKey), len(waiting), len(stillTenants))
			}
		}
	}
}
