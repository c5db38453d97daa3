package admission

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Why the gate did not let a request through.
const (
	rejectedBusy   = "busy"    // FailFast
	rejectedQueue  = "queue"   // MaxWaiting
	rejectedGaveUp = "gave_up" // the client's deadline passed, or the client went away
)

// bound sends a request away that has begun to wait where it may not, or another one of its kind in its stead. It is called with the lock held.
func (a *Admission) bound(w *waiter, l lane) {
	kind := w.turn.kind
	mayHave := a.placeFree(l) && a.placeOfTenant(w.turn) && a.withinClient(w.turn)
	if kind == SeriesRequest && a.gate.FailFast && !mayHave {
		a.gateMetrics.rejected.WithLabelValues(rejectedBusy).Inc()
		a.sendAway(w, l, status.Errorf(codes.Unavailable, "all %s are taken", a.placesOf(l)))
		return
	}
	most := a.gate.MaxWaiting
	q := &a.queues[l][kind]
	if most < 0 || q.len+a.queues[small+large-l][kind].len <= most && (l == small || q.len <= a.maxLargeWaiting) {
		return
	}
	if l == large {
		most = a.maxLargeWaiting
	}
	if kind == LabelRequest {
		a.allowanceMetrics.refused.WithLabelValues(rejectedQueue).Inc()
		a.sendAway(q.toSendAway(w), l, status.Errorf(codes.ResourceExhausted,
			"%d label requests wait for bytes of the request allowance of %d bytes (--store.request-bytes), no more may (--store.grpc.series-max-waiting)", most, a.total))
		return
	}
	a.gateMetrics.rejected.WithLabelValues(rejectedQueue).Inc()
	a.sendAway(q.toSendAway(w), l, status.Errorf(codes.ResourceExhausted,
		"all %s are taken and %d requests wait for one", a.placesOf(l), most))
}

// sendAway ends the waiting of a request with an error.
func (a *Admission) sendAway(w *waiter, l lane, err error) {
	a.dequeue(w, l)
	w.err = err
	close(w.ready)
}

// tooLarge returns the error of a request of n bytes that could not go in an idle process either: it is refused, not cut down to size, because the
// bytes would be used all the same.
func (a *Admission) tooLarge(t *Turn, n int64) error {
	if n <= a.smallRequest {
		return nil
	}
	if most := a.total - a.part; n > most {
		a.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes that one request may have of the request allowance of %d bytes (--store.request-bytes)",
			n, most, a.total)
	}
	if most := a.most(t); n > most {
		a.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes of the request allowance that its tenant may have (request_bytes_ratio of --store.limits.config)",
			n, most)
	}
	return nil
}

// gaveUp words the error of a request whose client did not wait, and counts it.
func (a *Admission) gaveUp(t *Turn, l lane, n int64, waited time.Duration, err error) error {
	waited = waited.Round(time.Millisecond)
	code := status.FromContextError(err).Code()
	if t.kind == SeriesRequest {
		a.mu.Lock()
		free := a.placeFree(l) && a.withinClient(t)
		a.mu.Unlock()
		if !free {
			a.gateMetrics.rejected.WithLabelValues(rejectedGaveUp).Inc()
			return status.Errorf(code, "waited %s for one of %s: %s", waited, a.placesOf(l), err)
		}
	}
	a.allowanceMetrics.refused.WithLabelValues("gave_up").Inc()
	return status.Errorf(code, "waited %s for %d bytes of the request allowance of %d bytes (--store.request-bytes): %s", waited, n, a.total, err)
}

// placesOf names the places that a request of a lane may have.
func (a *Admission) placesOf(l lane) string {
	if l == large {
		return fmt.Sprintf("%d places for large Series requests", a.largePlaces)
	}
	return fmt.Sprintf("%d places for Series requests", a.places)
}
