package store

import (
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/inbound/inboundtest"
	"larder/store/admission"
)

// slowStream needs 50 seconds for each frame.
type slowStream struct{ grpc.ServerStream }

func (slowStream) SendMsg(any) error {
	time.Sleep(50 * time.Second)
	return nil
}

// TestASlowClientLosesItsPlaces checks that a client loses a place if it reads each frame within
// the stall time-out, but so slowly that it keeps all places from other clients.
func TestASlowClientLosesItsPlaces(t *testing.T) {
	crowd, honest := inboundtest.ClientAt(
		t,
		"127.0.0.2",
		nil,
	), inboundtest.ClientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := admission.New(admission.GateOptions{MaxConcurrent: 4}, admission.AllowanceOptions{},
			nil, nil)
		s := newStalls(time.Minute, a.KeepsOthersWaiting, nil, slog.New(slog.DiscardHandler), nil)
		var wg sync.WaitGroup
		ended := make(chan error, 4)
		stop := make(chan struct{})
		for range 4 {
			ctx := peer.NewContext(t.Context(), crowd)
			turn, err := a.Enter(ctx, admission.DefaultTenant, admission.SeriesRequest)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer turn.Close()
				w := s.watch(ctx)
				defer w.stop()
				for {
					if err := w.send(slowStream{}, nil); err != nil {
						ended <- err
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		time.Sleep(time.Hour)
		if len(ended) > 0 {
			t.Errorf("aborted although no other client waits: %v", <-ended)
		}
		began := time.Now()
		turn, err := a.Enter(peer.NewContext(t.Context(), honest), admission.DefaultTenant,
			admission.SeriesRequest)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > time.Minute {
			t.Errorf("another client waited %s for a place", waited)
		}
		if err := <-ended; status.Code(err) != codes.Aborted {
			t.Errorf("got %v, want Aborted", err)
		}
		time.Sleep(time.Hour)
		if len(ended) > 0 {
			t.Errorf("another request was aborted although no client waits: %v", <-ended)
		}
		turn.Close()
		close(stop)
		wg.Wait()
		if waiting, _ := a.Waiting(); waiting || a.InUse() != 0 {
			t.Errorf("left behind: %d bytes, waiting: %v", a.InUse(), waiting)
		}
	})
}
