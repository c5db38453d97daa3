package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const (
	// soakPart is the approximate duration of one fault.
	soakPart = 10 * time.Second
	// heapGrowth and heapRoom limit the heap at the end relative to that after a quarter of the
	// time.
	heapGrowth = 1.15
	heapRoom   = 8e6
)

// soaked is the sum of the parts of a soak.
type soaked struct {
	asked, wrong, empty int
	slowest             time.Duration
	injections          map[string]int
	wrongs              []string
}

// soakFor injects random faults for a while.
func (w *world) soakFor(
	ctx context.Context, d time.Duration, r *rand.Rand, faults []fault, total *soaked,
) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		f := faults[r.IntN(len(faults))]
		res := result{fault: f.name}
		seed, part := r.Uint64(), soakPart/2+time.Duration(r.Int64N(int64(soakPart)))
		if err := w.breaking(ctx, f, seed, part, &res); err != nil {
			return err
		}
		total.asked += res.asked
		total.wrong += res.wrong
		total.empty += res.empty
		total.slowest = max(total.slowest, res.recovery)
		total.injections[f.name] += res.injections
		for _, s := range res.wrongs {
			total.wrongs = append(total.wrongs, f.name+": "+s)
		}
		w.printf("%s: %s\n", f.name, res.verdict())
	}
	return nil
}

// soak injects one random fault after the other for a long time, in one process; faults that end
// the process are excluded. After a quarter of the time and at the end all faults are undone, and
// what the idle process holds is measured.
func (w *world) soak(ctx context.Context, faults []fault) error {
	faults = slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return f.restarts || f.missing != nil && f.missing(w) != ""
	})
	if len(faults) == 0 {
		return errors.New("no fault remains for a soak")
	}
	r := rand.New(rand.NewPCG(w.conf.seed, 0x736f616b))
	total := soaked{injections: map[string]int{}}
	if err := w.soakFor(ctx, w.conf.soak/4, r, faults, &total); err != nil {
		return err
	}
	if err := w.rest(ctx); err != nil {
		return err
	}
	quarter := w.idle
	if err := w.soakFor(ctx, w.conf.soak-w.conf.soak/4, r, faults, &total); err != nil {
		return err
	}
	end, tooMuch, err := w.settle(ctx)
	if err != nil {
		return err
	}
	if most := quarter.heap*heapGrowth + heapRoom; end.heap > most {
		total.wrongs = append(
			total.wrongs, fmt.Sprintf("heap of %.1f MB, %.1f MB after a quarter of the time",
				end.heap/1e6, quarter.heap/1e6))
	}
	if tooMuch != "" {
		total.wrongs = append(total.wrongs, "left behind: "+tooMuch)
	}
	if err := w.askAll(ctx); err != nil {
		total.wrongs = append(total.wrongs, fmt.Sprintf("in the end: %v", err))
	}
	w.printf(
		"\nsoak of %s, seed %d: %d requests, %d wrong answers, %d empty successes, "+
			"slowest recovery %s\n",
		w.conf.soak, w.conf.seed, total.asked, total.wrong, total.empty,
		total.slowest.Round(time.Millisecond),
	)
	for _, name := range slices.Sorted(maps.Keys(total.injections)) {
		// Once is possible: there are no headers to damage until those of a removed directory are
		// written again.
		if total.injections[name] == 0 {
			total.wrongs = append(total.wrongs, name+": "+nothingBroken)
		}
		w.printf("  %s: %d injections\n", name, total.injections[name])
	}
	for _, p := range []struct {
		name string
		l    left
	}{{"after a quarter", quarter}, {"in the end", end}} {
		w.printf(
			"%s: heap %.1f MB, resident %.1f MB, %d goroutines, %d files, %d sockets, "+
				"%g bytes of the request allowance\n",
			p.name, p.l.heap/1e6, p.l.rss/1e6, p.l.goroutines, p.l.files, p.l.sockets, p.l.inUse,
		)
	}
	if len(total.wrongs) > 0 {
		w.printf("%s\n", strings.Join(total.wrongs, "\n"))
		return errFailed
	}
	return nil
}
