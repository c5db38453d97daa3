package store

import (
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"larder/store/admission"
)

// TestARequestUsesWhatItWaitedFor checks that a request that waited for more bytes uses these
// first. Otherwise it would lack as many again whenever other requests use all free bytes, until it
// exceeds the limit of one request and is rejected.
func TestARequestUsesWhatItWaitedFor(t *testing.T) {
	allowance := admission.AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 10}
	a := admission.New(admission.GateOptions{}, allowance, nil, nil)
	s := &Server{
		admission: a,
		metrics:   newMetrics(nil, nil, nil),
		tracer:    noop.NewTracerProvider().Tracer(""),
	}
	r := s.newRequest(t.Context(), methodSeries, asked{})
	if err := r.enter(admission.LabelRequest); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	var err error
	defer r.finish(&err)
	err = r.answer(func() error {
		attempts++
		if err := r.settle(12); err != nil {
			return err
		}
		others, _ := a.TryReserve(0)
		defer others.Close()
		for others.Reserve(1) == nil {
		}
		for range 4 {
			if err := r.Reserve(2); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || attempts != 2 {
		t.Errorf(
			"of 80 bytes that one may have a request needs 20, and got %v in %d attempts, want an answer in the second",
			err, attempts,
		)
	}
}
