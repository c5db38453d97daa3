package admission

import (
	"errors"
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

// queueFull is the error of a request that the queue rejected.
type queueFull struct{ status *status.Status }

func (e *queueFull) Error() string              { return e.status.String() }
func (e *queueFull) GRPCStatus() *status.Status { return e.status }

// Overloaded reports whether a request was rejected because of other requests, and not because of
// what it asks for: the queue was full, or they kept the bytes that it needs.
func Overloaded(err error) bool {
	var full *queueFull
	var must *MustWait
	return errors.As(err, &full) || errors.As(err, &must)
}

// rejectExcess rejects a request if w, which has just been queued, is one too many. That is w
// itself if requests must not wait, else the one that the queue chooses.
//
// LOCKING: the caller holds c.mu.
func (c *Controller) rejectExcess(w *waiter, l lane) {
	kind := w.turn.kind
	if taken := c.takenPlaces(w.turn, l); taken != "" && c.gate.FailFast {
		c.gateMetrics.rejected.WithLabelValues(rejectedBusy).Inc()
		c.reject(w, l, status.Errorf(codes.Unavailable, "all %s are taken", taken))
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
	what := "Series requests"
	if kind == LabelRequest {
		what = "label requests"
		c.allowanceMetrics.refused.WithLabelValues(rejectedQueue).Inc()
	} else {
		c.gateMetrics.rejected.WithLabelValues(rejectedQueue).Inc()
	}
	rejected := q.toReject(w)
	text := fmt.Sprintf("%d %s wait for bytes of %s, and no more may wait "+
		"(--store.grpc.series-max-waiting): retry later", limit, what, c.allowance)
	if taken := c.takenPlaces(rejected.turn, l); taken != "" {
		text = fmt.Sprintf("all %s are taken and %d requests wait for one", taken, limit)
	}
	c.reject(rejected, l, &queueFull{status.New(codes.ResourceExhausted, text)})
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
	if n <= c.maxBytes(t) {
		return nil
	}
	c.allowanceMetrics.refused.WithLabelValues(refusedTooLarge).Inc()
	return status.Errorf(codes.ResourceExhausted,
		"the request needs an estimated %s, more than %s", mibUp(n), c.bound(t))
}

// bound names the bytes that the request of t may reserve, and how to get more.
func (c *Controller) bound(t *Turn) string {
	limit := c.maxBytes(t)
	if limit < c.total-c.smallBytes {
		return fmt.Sprintf("the %s that its tenant may reserve (request_bytes_ratio of "+
			"--store.limits.config): split the request or raise the ratio", mib(limit))
	}
	return fmt.Sprintf("the %s that one request may reserve of %s: "+
		"split the request or raise the flag", mib(limit), c.allowance)
}

// abandoned counts a request whose client did not wait and returns its error. It takes c.mu.
func (c *Controller) abandoned(t *Turn, l lane, n int64, waited time.Duration, err error) error {
	waited = waited.Round(time.Millisecond)
	code := status.FromContextError(err).Code()
	if t.kind == SeriesRequest {
		c.mu.Lock()
		taken := c.takenPlaces(t, l)
		c.mu.Unlock()
		if taken != "" {
			c.gateMetrics.rejected.WithLabelValues(rejectedGaveUp).Inc()
			return status.Errorf(code, "waited %s for one of %s: %s", waited, taken, err)
		}
	}
	c.allowanceMetrics.refused.WithLabelValues(refusedGaveUp).Inc()
	return status.Errorf(code, "waited %s for %s of %s: %s", waited, mibUp(n), c.allowance, err)
}

// takenPlaces names the places that are all taken, so that t cannot get one. It returns "" if t can
// get a place or needs none.
//
// LOCKING: the caller holds c.mu.
func (c *Controller) takenPlaces(t *Turn, l lane) string {
	switch {
	case t.kind != SeriesRequest:
		return ""
	case !c.placeFree(l) && l == large:
		return fmt.Sprintf("%d places for large Series requests", c.largePlaces)
	case !c.placeFree(l):
		return fmt.Sprintf("%d places for Series requests", c.places)
	case !c.placeOfTenant(t):
		return fmt.Sprintf("%d places for Series requests of its tenant "+
			"(max_concurrent of --store.limits.config)", c.limits.of(t.tenant).MaxConcurrent)
	case !c.withinClient(t):
		return fmt.Sprintf("%d places for Series requests of its client address",
			c.fullShare(t.client))
	}
	return ""
}

// mib formats a number of bytes that exist: it rounds down to a tenth of a MiB.
func mib(n int64) string { return tenths(n, n*10>>20) }

// mibUp formats a number of bytes that are needed: it rounds up to a tenth of a MiB. Therefore a
// need that exceeds a limit also exceeds it in an error.
func mibUp(n int64) string { return tenths(n, (n*10+1<<20-1)>>20) }

func tenths(n, tenths int64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%d bytes", n)
	case tenths%10 == 0:
		return fmt.Sprintf("%d MiB", tenths/10)
	}
	return fmt.Sprintf("%d.%d MiB", tenths/10, tenths%10)
}
