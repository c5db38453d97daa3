package admission

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLabelRequestsThatWaitAreBounded: label requests have the same bound as Series requests.
func TestLabelRequestsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		a := New(
			GateOptions{MaxWaiting: 3},
			AllowanceOptions{Bytes: 100, SmallLane: 10, SmallRequest: 10},
			nil,
			reg,
		)
		all, err := admit(t.Context(), a, DefaultTenant, LabelRequest, 90)
		if err != nil {
			t.Fatal(err)
		}
		first, err := a.Enter(t.Context(), DefaultTenant, LabelRequest)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				turn, err := a.Enter(t.Context(), DefaultTenant, LabelRequest)
				if err != nil {
					t.Error(err)
				}
				turn.Close()
			})
		}
		synctest.Wait()
		_, err = a.Enter(t.Context(), DefaultTenant, LabelRequest)
		if status.Code(err) != codes.ResourceExhausted ||
			!strings.Contains(err.Error(), "3 label requests wait") {
			t.Errorf("a fourth got %v, want ResourceExhausted", err)
		}
		if n := gathered(t, reg)["larder_request_allowance_refused_total queue"]; n != 1 {
			t.Errorf("%v refusals counted, want 1", n)
		}
		first.Close()
		all.Close()
		wg.Wait()
		checkIdle(t, a)
	})
}
