package admission

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons for which the gate rejects a request.
const (
	rejectedBusy   = "busy"    // GateOptions.FailFast
	rejectedQueue  = "queue"   // GateOptions.MaxWaiting
	rejectedGaveUp = "gave_up" // the client cancelled, or its deadline passed
)

// rejectExcess rejects a request if w, which has just been queued, is one too many. That is w
// itself if requests must not wait, else the one that the queue chooses.
//
// LOCKING: the caller holds c.mu.
func (c *Controller) rejectExcess(w *waiter, l lane) {
	kind := w.turn.kind
	mayHave := c.placeFree(l) && c.placeOfTenant(w.turn) && c.withinClient(w.turn)
	if kind == SeriesRequest && c.gate.FailFast && !mayHave {
		c.gateMetrics.rejected.WithLabelValues(rejectedBusy).Inc()
		c.reject(w, l, status.Errorf(codes.Unavailable, "all %s are taken", c.placesOf(l)))
		return
	}
	limit := c.gate.MaxWaiting
	q := &c.queues[l][kind]
	waiting := q.len + c.queues[small+large-l][kind].len
	if limit < 0 || waiting <= limit && (l == small || q.len <= c.maxLargeWaiting) {
		return
	}
	if l == large {
		limit = c.maxLargeWaiting
	}
	if kind == LabelRequest {
		c.allowanceMetrics.refused.WithLabelValues(rejectedQueue).Inc()
		c.reject(q.toReject(w), l, status.Errorf(
			codes.ResourceExhausted,
			"%d label requests wait for bytes of the request allowance of %d bytes (--store.request-bytes), no more may (--store.grpc.series-max-waiting)",
			limit,
			c.total,
		))
		return
	}
	c.gateMetrics.rejected.WithLabelValues(rejectedQueue).Inc()
	c.reject(q.toReject(w), l, status.Errorf(codes.ResourceExhausted,
		"all %s are taken and %d requests wait for one", c.placesOf(l), limit))
}

// reject removes a request from its queue and ends its wait with an error.
//
// LOCKING: the caller holds c.mu.
func (c *Controller) reject(w *waiter, l lane, err error) {
	c.dequeue(w, l)
	w.err = err
	close(w.ready)
}

// tooLarge returns an error if a request of n bytes could not run in an idle process either. Such a
// request is rejected instead of getting fewer bytes, because it would use n bytes all the same.
func (c *Controller) tooLarge(t *Turn, n int64) error {
	if n <= c.smallRequest {
		return nil
	}
	if limit := c.total - c.smallBytes; n > limit {
		c.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(
			codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes that one request may have of the request allowance of %d bytes (--store.request-bytes)",
			n,
			limit,
			c.total,
		)
	}
	if limit := c.maxBytes(t); n > limit {
		c.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(
			codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes of the request allowance that its tenant may have (request_bytes_ratio of --store.limits.config)",
			n,
			limit,
		)
	}
	return nil
}

// abandoned counts a request whose client did not wait and returns its error. It takes c.mu.
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
	return status.Errorf(code,
		"waited %s for %d bytes of the request allowance of %d bytes (--store.request-bytes): %s",
		waited, n, c.total, err)
}

// placesOf names the places of a lane, for errors.
func (c *Controller) placesOf(l lane) string {
	if l == large {
		return fmt.Sprintf("%d places for large Series requests", c.largePlaces)
	}
	return fmt.Sprintf("%d places for Series requests", c.places)
}
