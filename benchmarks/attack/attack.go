package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// attack is one way to harm a larder.
type attack struct {
	name   string
	number string // number in the report; "" for an attack that never succeeded
	// timed sets a bound for the p99 of honest requests, see honestP99.
	timed bool
	// prepare changes bucket, data directory and flags before larder starts; nil changes nothing.
	prepare func(ctx context.Context, t *target) error
	// alone means that the attack starts larder itself, as often as it needs to.
	alone bool
	// run attacks, and returns what it did and what happened, in a few words. It reports what got
	// through to the target.
	run func(ctx context.Context, t *target) (did string, err error)
}

// String returns the name of the attack.
func (a attack) String() string { return a.name }

const (
	// honestP99 is the maximum of the p99 of honest requests in timed attacks.
	honestP99 = 100 * time.Millisecond
	// quietTime is how long honest requests continue after an attack, in milliseconds.
	quietTime, shortQuietTime = 2000, 500
)

// allAttacks returns the attacks in the order of their numbers, then those that never succeeded.
// The first does nothing: its figures are the baseline for the others.
func allAttacks() []attack {
	none := []attack{{name: "none", run: func(ctx context.Context, t *target) (string, error) {
		pause(ctx, time.Duration(t.n(10, 1))*time.Second)
		return "nothing", nil
	}}}
	return slices.Concat(none, messageAttacks(), streamAttacks(), bucketAttacks(), tenantAttacks(),
		webAttacks(),
		diskAttacks(), floodAttacks(), holdingAttacks(), oldAttacks())
}

// result is the outcome of an attack.
type result struct {
	name, number string
	did          string
	alone        bool
	cgroup       bool
	peak         int64 // resident bytes
	cgroupPeak   int64
	lives        bool
	honest       figures
	took         time.Duration
	findings     []string
}

func (r *result) verdict() string {
	if len(r.findings) > 0 {
		return "GOT THROUGH"
	}
	return "holds"
}

// attack runs one attack.
func (c config) attack(ctx context.Context, a attack, dir string) (r result, err error) {
	t := &target{conf: c, dir: dir}
	if err := t.makeBucket(ctx); err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // removes the folder above too
	if a.prepare != nil {
		if err := a.prepare(ctx, t); err != nil {
			return r, fmt.Errorf("prepare: %w", err)
		}
	}
	r = result{name: a.name, number: a.number, alone: a.alone}
	start := time.Now()
	if a.alone {
		r.did, err = a.run(ctx, t)
		r.took, r.findings, r.lives = time.Since(start), t.findings, len(t.findings) == 0
		return r, err
	}
	if err := t.start(ctx); err != nil {
		// Larder is under attack from its start.
		t.got("larder does not start: %v", err)
	} else if h, err := t.startHonest(ctx); err != nil {
		t.got("no honest request succeeds: %v", err)
	} else {
		var failed error
		r.did, failed = a.run(ctx, t)
		pause(ctx, time.Duration(t.n(quietTime, shortQuietTime))*time.Millisecond)
		if r.honest, err = h.end(); err == nil {
			err = failed
		}
		if err != nil && !t.larder.Ended() {
			t.stop()
			return r, err
		}
		if t.larder.Ended() {
			t.got("larder has ended: %v", t.larder.Err())
		}
	}
	if t.larder != nil {
		r.lives = !t.larder.Ended()
		r.peak, r.cgroupPeak, r.cgroup = t.peak.Load(), t.larder.CgroupPeak(), t.larder.InCgroup()
		t.stop()
	}
	r.took = time.Since(start)
	if r.peak >= c.limit {
		t.got("%d MiB resident, the limit is %d", r.peak>>20, c.limit>>20)
	}
	if n := len(r.honest.failed); n > 0 {
		t.got("%d of %d honest requests failed, the first: %v", n, r.honest.asked(),
			r.honest.failed[0])
	}
	if p99 := r.honest.quantile(0.99); a.timed && !c.short && p99 > honestP99 {
		t.got("the p99 of honest requests is %s", p99.Round(time.Millisecond))
	}
	r.findings = t.findings
	return r, ctx.Err()
}

// pause waits. It returns false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
