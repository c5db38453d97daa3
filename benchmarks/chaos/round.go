package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"

	"larder/benchmarks/process"
)

// result is the result of a round.
type result struct {
	fault      string
	skipped    string // why there was no round
	injections int
	asked      int
	wrong      int
	empty      int
	failures   string
	recovery   time.Duration
	slowest    time.Duration
	left       left
	wrongs     []string // reasons for the run to fail
}

// round injects a fault under load, undoes it, and checks what follows.
func (w *world) round(ctx context.Context, f fault, seed uint64) (res result, err error) {
	res = result{fault: f.name}
	if f.missing != nil {
		if res.skipped = f.missing(w); res.skipped != "" {
			return res, nil
		}
	}
	// A loaded machine may ask so few questions in the usual time that none meets the fault.
	for _, injectFor := range []time.Duration{w.conf.injectFor, 10 * w.conf.injectFor} {
		if err := w.breaking(ctx, f, seed, injectFor, &res); err != nil {
			return res, err
		}
		if res.injections > 0 {
			break
		}
	}
	if res.injections == 0 {
		res.wrongs = append(res.wrongs, nothingBroken)
	}
	var tooMuch string
	if res.left, tooMuch, err = w.settle(ctx); err != nil {
		return res, fmt.Errorf("%s: %w", f.name, err)
	}
	if tooMuch != "" {
		res.wrongs = append(res.wrongs, "left behind: "+tooMuch)
		w.printf("goroutines after %s:\n%s\n", f.name, res.left.stacks)
	}
	return res, nil
}

// breaking injects a fault for a while under load, undoes it, and waits until answers arrive again.
func (w *world) breaking(
	ctx context.Context, f fault, seed uint64, injectFor time.Duration, res *result,
) error {
	l := w.startLoad(ctx, seed, f.codes)
	defer l.end()
	broken, cancel := context.WithTimeout(ctx, injectFor)
	defer cancel()
	n, err := f.run(broken, w, rand.New(rand.NewPCG(seed, 0x666c74)))
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	took, recovered := l.heal(ctx, w.conf.recoverIn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.end()
	if w.tested.Ended() {
		return fmt.Errorf("%s: larder has ended: %w\n%s", f.name,
			errors.Join(w.tested.Err(), process.ErrEnded), w.tested.Tail())
	}
	res.injections, res.recovery, res.slowest = n, took, l.slowest
	res.asked, res.wrong, res.empty, res.failures = l.asked, l.wrong, l.empty, l.failures()
	res.judge(l, recovered)
	return nil
}

// nothingBroken is the result of a fault that did not take effect.
const nothingBroken = "nothing was broken"

// judge records the reasons for the run to fail.
func (res *result) judge(l *load, recovered bool) {
	bad := func(is bool, format string, args ...any) {
		if is {
			res.wrongs = append(res.wrongs, fmt.Sprintf(format, args...))
		}
	}
	bad(res.asked == 0, "nothing was asked")
	bad(l.wrong > 0, "%d wrong answers", l.wrong)
	bad(l.unexpected > 0, "%d requests failed that should not, or with another code than %v",
		l.unexpected, l.allowed)
	bad(!recovered, "no recovery within %s", res.recovery)
	if len(res.wrongs) > 0 {
		res.wrongs = append(res.wrongs, l.shown...)
	}
}

// rounds runs all rounds, one after the other.
func (w *world) rounds(ctx context.Context, faults []fault) (results []result, err error) {
	if err := w.rest(ctx); err != nil {
		return nil, err
	}
	for i, f := range faults {
		res, err := w.round(ctx, f, w.conf.seed+uint64(i))
		if err != nil {
			return results, err
		}
		results = append(results, res)
		w.printf("%s: %s\n", f.name, res.verdict())
	}
	// In the end the process answers like a new one.
	return results, w.askAll(ctx)
}

// rest measures what the process holds at rest, after a while of use without faults: then it has
// its connections, some of which would be missing after a fault. The result is the minimum over a
// while, and the baseline of later measurements.
func (w *world) rest(ctx context.Context) error {
	load := w.startLoad(ctx, w.conf.seed, []codes.Code{})
	pause(ctx, w.conf.injectFor)
	load.end()
	if load.wrong+load.unexpected > 0 {
		return fmt.Errorf("while nothing is broken: %d wrong answers, failures %s\n%s", load.wrong,
			load.failures(), strings.Join(load.shown, "\n"))
	}
	for i := range 5 {
		pause(ctx, 500*time.Millisecond)
		l, err := w.tested.count(ctx, w.dataDir)
		if err != nil {
			return err
		}
		if i == 0 {
			w.idle = l
			continue
		}
		w.idle.goroutines, w.idle.files, w.idle.sockets = min(l.goroutines, w.idle.goroutines),
			min(l.files, w.idle.files), min(l.sockets, w.idle.sockets)
	}
	w.printf("at rest: %d goroutines, %d files, %d sockets, heap %.1f MB, resident %.1f MB\n",
		w.idle.goroutines, w.idle.files, w.idle.sockets, w.idle.heap/1e6, w.idle.rss/1e6)
	return nil
}

func (res *result) verdict() string {
	switch {
	case res.skipped != "":
		return "left out: " + res.skipped
	case len(res.wrongs) > 0:
		return "FAILED: " + strings.Join(res.wrongs, "\n    ")
	}
	return fmt.Sprintf("%d injections, %d requests, failed %s, answers again after %s",
		res.injections, res.asked, res.failures, res.recovery.Round(time.Millisecond))
}

// failed reports whether the run fails.
func failed(results []result) bool {
	for _, r := range results {
		if len(r.wrongs) > 0 {
			return true
		}
	}
	return false
}

// printTable prints the results of the rounds.
func printTable(out io.Writer, results []result) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(
		tw,
		"fault\tinjections\trequests\twrong answers\tempty successes\tfailed requests\tslowest\t"+
			"time to recover\tgoroutines\tfiles\tsockets\tverdict",
	)
	for _, r := range results {
		verdict := "ok"
		switch {
		case r.skipped != "":
			fmt.Fprintf(tw, "%s\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\tleft out: %s\n", r.fault, r.skipped)
			continue
		case len(r.wrongs) > 0:
			verdict = "FAILED: " + r.wrongs[0]
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", r.fault, r.injections,
			r.asked, r.wrong, r.empty, r.failures,
			r.slowest.Round(time.Millisecond), r.recovery.Round(time.Millisecond),
			r.left.goroutines, r.left.files, r.left.sockets, verdict)
	}
	return tw.Flush()
}
