package run

import (
	"fmt"
	"time"

	"larder/interop/internal/compare/dataset"
)

// plan is how long the rest of a run is expected to take, from what each step took in earlier runs
// on two cores.
type plan struct {
	left, done time.Duration // as expected; neither knows how fast this machine is
}

// passed notes that a step with the given expected time is over.
func (p *plan) passed(expected time.Duration) {
	p.done += expected
	p.left = max(p.left-expected, 0)
}

// limit is how long a step with the given expected time may take so that the rest fits into the
// time that remains, and at most the usual time.
func (p *plan) limit(expected, remains, usual time.Duration) time.Duration {
	if p.left <= 0 || remains >= p.left {
		return usual
	}
	return min(usual, time.Duration(float64(expected)*float64(remains)/float64(p.left)))
}

// Seconds that steps take besides their calls.
const (
	// systemTime is a turn of one system, restartTime what its restart adds to a cold one.
	systemTime, restartTime = 0.35, 0.2
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// expected adds up what is to be done.
func (r *runner) expected(jobs []job) plan {
	var p plan
	for _, j := range jobs {
		if j.starts > 0 {
			p.left += r.startsTime(j)
		}
		if len(j.queries) > 0 {
			p.left += r.setupTime(j)
		}
		for _, mode := range Modes() {
			if !chosen(r.Modes, mode) {
				continue
			}
			for _, c := range r.cells(j.queries, mode) {
				p.left += r.cellTime(c)
			}
		}
	}
	return p
}

// cellTime is how long a row is expected to take.
func (r *runner) cellTime(c cell) time.Duration {
	least := leastRounds
	if c.query.Slow {
		least = 1
	}
	systems := 2.0
	switch c.mode {
	case FS:
		systems = 3 // and the floor
	case S3Disk:
		systems = 1
	}
	round := systems * systemTime
	if cold(c.mode) {
		round += systems * restartTime
	}
	if c.mode == S3Disk {
		round += systems * (systemTime + restartTime) // see session.later
	}
	if c.concurrency > 1 {
		round += c.query.Seconds * float64(c.concurrency) / 2 // two cores
	} else {
		round += c.query.Seconds
	}
	if r.Untimed || r.Short {
		return seconds(round)
	}
	all := min(seconds(round*float64(r.Rounds)), r.RowTime+seconds(round))
	return max(all, seconds(round*float64(least)))
}

// setupTime is how long starting the systems over a data set, and comparing the answers, is
// expected to take.
func (r *runner) setupTime(j job) time.Duration {
	if r.Short || j.set.Setup == 0 {
		return seconds(5)
	}
	return seconds(j.set.Setup)
}

// startsTime is how long the starts with an empty data directory are expected to take.
func (r *runner) startsTime(j job) time.Duration {
	if r.Short {
		return seconds(15)
	}
	return seconds(j.set.Start) * time.Duration(startRounds(j.set, r.Rounds))
}

// remaining is the part of a progress line that says how much longer the run takes.
func (r *runner) remaining() string {
	if r.plan.left == 0 {
		return ""
	}
	factor := float64(time.Since(r.planned)) / float64(max(r.plan.done, time.Second))
	if r.plan.done < time.Minute {
		factor = 1 // too little to judge this machine by
	}
	return fmt.Sprintf(
		"  (about %s left)", rough(time.Duration(float64(r.plan.left)*min(max(factor, 0.3), 3))),
	)
}

// rough writes a duration as minutes, or as seconds if it is short.
func rough(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f seconds", d.Seconds())
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

// startRounds is how many starts of each system over a data set are measured. A start with 10,000
// blocks takes minutes.
func startRounds(s dataset.Set, rounds int) int {
	if s.Slow {
		return min(rounds, 2)
	}
	return rounds
}
