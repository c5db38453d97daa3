package main

import (
	"context"
	"io"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/store/storepb"
)

// TestWhatAClientMaySend checks the bounds of messages and metadata.
func TestWhatAClientMaySend(t *testing.T) {
	done := func(storepb.Store_SeriesServer) error { return nil }
	f := startRPC(t, grpcConfig{}, &fakeStore{series: done}, noTracing(t), nil)
	client := storepb.NewStoreClient(f.conn)
	ask := func(ctx context.Context, size int) error {
		stream, err := client.Series(
			ctx,
			&storepb.SeriesRequest{
				Matchers: []*storepb.LabelMatcher{{Name: strings.Repeat("x", size)}},
			},
		)
		if err == nil {
			_, err = stream.Recv()
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
	ctx := t.Context()
	if err := ask(ctx, maxRequestBytes-100); err != nil {
		t.Errorf("a message just within the bound: %v", err)
	}
	if err := ask(ctx, maxRequestBytes); status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a message beyond the bound: got %v, want ResourceExhausted", err)
	}
	if err := ask(
		metadata.AppendToOutgoingContext(ctx, "token", strings.Repeat("x", maxHeaderBytes/2)),
		1); err != nil {
		t.Errorf("metadata within the bound: %v", err)
	}
	if err := ask(
		metadata.AppendToOutgoingContext(ctx, "token", strings.Repeat("x", maxHeaderBytes)),
		1); err == nil {
		t.Error("metadata beyond the bound went through")
	}
}

// TestRequestsOfAConnectionAreBounded checks that requests beyond the maximum number of streams
// wait until one has ended.
func TestRequestsOfAConnectionAreBounded(t *testing.T) {
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	f := startRPC(
		t,
		grpcConfig{maxStreams: 2},
		&fakeStore{series: func(storepb.Store_SeriesServer) error {
			begun <- struct{}{}
			<-finish
			return nil
		}},
		noTracing(t),
		nil,
	)
	client := storepb.NewStoreClient(f.conn)
	ended := make(chan error, 3)
	for range 3 {
		go func() {
			stream, err := client.Series(t.Context(), &storepb.SeriesRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			ended <- err
		}()
	}
	<-begun
	<-begun
	select {
	case <-begun:
		t.Error("three run on a connection for two")
	default:
	}
	close(finish)
	for range 3 {
		if err := <-ended; err != io.EOF {
			t.Error(err)
		}
	}
}

// TestAProcessAndAClientThatDoesNotRead checks flag, log, metric and a clean shutdown of a process.
func TestAProcessAndAClientThatDoesNotRead(t *testing.T) {
	p := startProcess(
		t, folder(wideBucket(t)), "--drain-delay=0s", "--store.grpc.send-stall-timeout=1s",
		"--store.grpc.series-max-concurrency=1",
	)
	p.await("readiness changed.*ready=true")
	deaf := p.series()
	p.await("client does not read its answer")
	if n := countSeries(t, p.series()); n != wideSeries { // there is one place for both
		t.Errorf("got %d series, want %d", n, wideSeries)
	}
	for {
		if _, err := deaf.Recv(); err != nil {
			if status.Code(err) != codes.Aborted {
				t.Errorf("got %v, want Aborted", err)
			}
			break
		}
	}
	if _, metrics := p.get("/metrics"); !strings.Contains(
		metrics, "larder_series_send_stalled_total 1",
	) ||
		!strings.Contains(metrics, `larder_connections{server="grpc"} 1`) {
		t.Error("/metrics does not tell of one stall and one connection")
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}
