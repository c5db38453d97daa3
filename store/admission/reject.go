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
func (c *Controller) rejectExcess(w *waiter, l lane) {
	kind := w.turn.kind
	mayHave := c.placeFree(l) && c.placeOfTenant(w.turn) && c.withinClient(w.turn)
	if kind == SeriesRequest && c.gate.FailFast && !mayHave {
		c.gateMetrics.rejected.WithLabelValues(rejectedBusy).Inc()
		c.reject(w, l, status.Errorf(codes.Unavailable, "all %s are taken", c.placesOf(l)))
		return
	}
	most := c.gate.MaxWaiting
	q := &c.queues[l][kind]
	if most < 0 || q.len+c.queues[small+large-l][kind].len <= most && (l == small || q.len <= c.maxLargeWaiting) {
		return
	}
	if l == large {
		most = c.maxLargeWaiting
	}
	if kind == LabelRequest {
		c.allowanceMetrics.refused.WithLabelValues(rejectedQueue).Inc()
		c.reject(q.toReject(w), l, status.Errorf(codes.ResourceExhausted,
			"%d label requests wait for bytes of the request allowance of %d bytes (--store.request-bytes), no more may (--store.grpc.series-max-waiting)", most, c.total))
		return
	}
	c.gateMetrics.rejected.WithLabelValues(rejectedQueue).Inc()
	c.reject(q.toReject(w), l, status.Errorf(codes.ResourceExhausted,
		"all %s are taken and %d requests wait for one", c.placesOf(l), most))
}

// reject ends the waiting of a request with an error.
func (c *Controller) reject(w *waiter, l lane, err error) {
	c.dequeue(w, l)
	w.err = err
	close(w.ready)
}

// tooLarge returns the error of a request of n bytes that could not go in an idle process either: it is refused, not cut down to size, because the
// bytes would be used all the same.
func (c *Controller) tooLarge(t *Turn, n int64) error {
	if n <= c.smallRequest {
		return nil
	}
	if most := c.total - c.smallBytes; n > most {
		c.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes that one request may have of the request allowance of %d bytes (--store.request-bytes)",
			n, most, c.total)
	}
	if most := c.maxBytes(t); n > most {
		c.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes of the request allowance that its tenant may have (request_bytes_ratio of --store.limits.config)",
			n, most)
	}
	return nil
}

// gaveUp words the error of a request whose client did not wait, and counts it.
func (c *Controller) abandoned(t *Turn, l lane, n int64, waited time.Duration, err error) error {
	waited = waited.Round(time.Millisecond)
	code := status.FromContextError(err).Code()
	if t.kind == SeriesRequest {
		c.mu.Lock()
		free := c.placeFree(l) && c.withinClient(t)
		c.mu.Unlock()
		if !free {
			c.gateMetrics.rejected.WithLabelValues(rejectedGaveUp).Inc()
			return status.Errorf(code, "waited %s for one of %s: %s", waited, c.placesOf(l), err)
		}
	}
	c.allowanceMetrics.refused.WithLabelValues("gave_up").Inc()
	return status.Errorf(code, "waited %s for %d bytes of the request allowance of %d bytes (--store.request-bytes): %s", waited, n, c.total, err)
}

// placesOf names the places that a request of a lane may have.
func (c *Controller) placesOf(l lane) string {
	if l == large {
		return fmt.Sprintf("%d places for large Series requests", c.largePlaces)
	}
	return fmt.Sprintf("%d places for Series requests", c.places)
}
