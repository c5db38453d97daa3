package slots

import (
	"context"
	"sync"
)

// gate has units, and the reads that wait for some.
type gate struct {
	mu       sync.Mutex
	capacity int64 // of used; may fall below it
	used     int64
	// demand has the reads that a request waits for, ahead those of look-ahead.
	demand, ahead turns
	promoted      int64 // waiting reads that moved from ahead to demand
}

// place is one read that waits at a gate.
type place struct {
	gate    *gate
	units   int64
	owner   *Owner
	granted chan struct{} // closed when the units are granted

	// Guarded by gate.mu: where the place is. Both are nil once it is granted or withdrawn.
	in    *turns
	queue *queue
}

// acquire acquires units for r. It waits for them until ctx ends, and returns the error of ctx
// then.
func (g *gate) acquire(ctx context.Context, r *Read, units int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	owner, demand := r.class()
	g.mu.Lock()
	if g.tryLocked(units, demand) {
		g.mu.Unlock()
		return nil
	}
	p := &place{gate: g, units: units, owner: owner, granted: make(chan struct{})}
	if demand {
		g.demand.push(p)
	} else {
		g.ahead.push(p)
	}
	g.mu.Unlock()

	if !demand {
		// Either promote sees the place, or the promotion is seen here.
		r.place.Store(p)
		defer r.place.Store(nil)
		if owner := r.demand.Load(); owner != nil {
			p.promote(owner)
		}
	}
	select {
	case <-p.granted:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.in == nil { // granted in the meantime: pass it on
		g.used -= units
	} else {
		p.in.remove(p)
	}
	g.grantLocked()
	return ctx.Err()
}

// tryLocked takes units if they are free and no read waits that comes first.
func (g *gate) tryLocked(units int64, demand bool) bool {
	if g.demand.len > 0 || !demand && g.ahead.len > 0 || !g.freeLocked(units, demand) {
		return false
	}
	g.used += units
	return true
}

// freeLocked reports whether a read may have units. Look-ahead leaves a quarter of the capacity
// free, unless nothing else runs.
func (g *gate) freeLocked(units int64, demand bool) bool {
	if demand {
		return g.used+units <= g.capacity
	}
	return g.used+units <= g.capacity-(g.capacity+3)/4 || g.used == 0 && units <= g.capacity
}

func (g *gate) release(units int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= units
	g.grantLocked()
}

// grantLocked grants free units by turns, to look-ahead only while no other read waits.
func (g *gate) grantLocked() {
	for demand, t := true, &g.demand; ; demand, t = false, &g.ahead {
		for t.len > 0 {
			p := t.first()
			if !g.freeLocked(p.units, demand) {
				return
			}
			t.next()
			g.used += p.units
			close(p.granted)
		}
		if !demand {
			return
		}
	}
}

// promote lets a read that waits as look-ahead wait as a read of owner instead.
func (p *place) promote(owner *Owner) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.in != &g.ahead {
		return
	}
	g.ahead.remove(p)
	p.owner = owner
	g.demand.push(p)
	g.promoted++
	g.grantLocked()
}
