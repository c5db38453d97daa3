package floor_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"

	"larder/interop/internal/compare/client"
	"larder/interop/internal/compare/floor"
)

// TestReplay records the answer of a server and asks the floor for it.
func TestReplay(t *testing.T) {
	want := []string{"first", "", "third"}
	original := grpc.NewServer(
		grpc.ForceServerCodecV2(client.Raw{}),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			var m client.Message
			if err := s.RecvMsg(&m); err != nil {
				return err
			}
			for _, f := range want {
				if err := s.SendMsg(client.Message(f)); err != nil {
					return err
				}
			}
			return nil
		}),
	)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	dial := func(l net.Listener) *client.Client {
		c, err := client.Dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	l := listen()
	go original.Serve(l)
	defer original.Stop()
	dir := t.TempDir()
	call := client.Call{Method: "/thanos.Store/Series", Request: []byte("question")}
	if err := floor.Record(t.Context(), dir, dial(l), call); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	l = listen()
	served := make(chan error, 1)
	go func() { served <- floor.Serve(ctx, l, dir) }()
	c := dial(l)
	var got []string
	r, err := c.Do(t.Context(), call, func(m []byte) { got = append(got, string(m)) })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("replayed %q, want %q", got, want)
	}
	if r.Frames != 3 || r.Bytes != 10 || r.First <= 0 || r.Wall < r.First {
		t.Errorf("result %+v", r)
	}
	call.Request = []byte("another question")
	if _, err := c.Do(t.Context(), call, nil); err == nil {
		t.Error("a request without a recorded answer succeeded")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
