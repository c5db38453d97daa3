package admission

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkSendingAway measures the choice of the request to reject among 1000.
func BenchmarkSendingAway(b *testing.B) {
	var q fairQueue
	for i := range 1000 {
		q.push(
			&waiter{tenant: fmt.Sprint(i), weight: 1, cost: 1, arrival: uint64(i), turn: &Turn{}},
		)
	}
	last := &waiter{tenant: "last", weight: 1, cost: 1, arrival: 1001, turn: &Turn{}}
	q.push(last)
	for b.Loop() {
		if q.toReject(last) == nil {
			b.Fatal(context.Canceled)
		}
	}
}
