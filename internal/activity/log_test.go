package activity

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

type live struct{ start time.Time }

func (l *live) Started() time.Time { return l.start }
func (l *live) Activity() Request  { return Request{Start: l.start} }

// end ends a request that took d.
func end(l *Log, d time.Duration, failed bool) (described bool) {
	r := &live{time.Now()}
	l.Begin(r)
	l.End(r, d, failed, func(d time.Duration) Ended {
		described = true
		return Ended{Request: r.Activity(), Duration: d, Err: fmt.Sprint(d)}
	})
	return described
}

func TestLogKeepsTheSlowestAndTheNewestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		for i := range maxSlowest + 5 {
			end(l, time.Duration(i+1)*time.Second, false)
		}
		if end(l, time.Second, false) {
			t.Error("a fast request was described")
		}
		got := l.Slowest()
		if len(got) != maxSlowest || got[0].Duration != (maxSlowest+5)*time.Second ||
			got[maxSlowest-1].Duration != 6*time.Second {
			t.Errorf("slowest: %v", got)
		}
		for i := range maxFailures + 1 {
			end(l, time.Duration(i)*time.Millisecond, true)
		}
		failures := l.Failures()
		if len(failures) != maxFailures || failures[0].Err != "50ms" {
			t.Errorf("%d failures, the newest is %v", len(failures), failures[0])
		}
		l.Reject(Ended{Request: Request{Start: time.Now()}, Err: "not ready"})
		if f := l.Failures(); len(f) != maxFailures || f[0].Err != "not ready" {
			t.Errorf("%d failures after a rejected request, the newest is %v", len(f), f[0])
		}
		time.Sleep(recent + time.Second)
		if end(l, time.Millisecond, false); len(l.Slowest()) != 1 || len(l.Failures()) != 0 {
			t.Errorf("after an hour: %v, %v", l.Slowest(), l.Failures())
		}
	})
}

func TestLogListsTheOldestRunning(t *testing.T) {
	l := New()
	start := time.Now()
	for i := range MaxRunning + 1 {
		l.Begin(&live{start.Add(-time.Duration(i) * time.Second)})
	}
	got, total := l.Running()
	if total != MaxRunning+1 || len(got) != MaxRunning ||
		!got[0].Start.Equal(start.Add(-MaxRunning*time.Second)) {
		t.Errorf("%d of %d, the oldest is %v", len(got), total, got[0].Start)
	}
	var none *Log
	none.Begin(nil)
	if got, _ := none.Running(); got != nil {
		t.Error("a nil log has requests")
	}
}
