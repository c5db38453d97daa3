package server

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/interop/internal/compare/floor"
	"larder/interop/internal/gateway"
)

// The commands that make this program a server.
const (
	serveThanos = "serve-thanos"
	serveFloor  = "serve-floor"
)

// Serve makes this program a server if its arguments say so. It returns false if they do not.
func Serve(ctx context.Context, args []string) (bool, error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case serveThanos:
		return true, thanos(ctx, args[1:])
	case serveFloor:
		return true, replay(ctx, args[1:])
	}
	return false, nil
}

func thanos(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(serveThanos, flag.ContinueOnError)
	listen := fs.String("listen", "", "gRPC address")
	web := fs.String("http", "", "address of the metrics")
	bucket := fs.String("bucket", "", "the bucket's folder")
	config := fs.String("config", "", "the bucket's configuration, instead of a folder")
	dataDir := fs.String("data-dir", "", "a folder of its own")
	cache := fs.Int64("index-cache-size", 0, "bytes; 0 is the default")
	if err := fs.Parse(args); err != nil {
		return err
	}
	t, err := gateway.StartThanos(
		ctx, gateway.Bucket{Dir: *bucket, Config: *config, DataDir: *dataDir},
		gateway.ThanosOptions{NoHints: true, IndexCache: *cache, Listen: *listen},
	)
	if err != nil {
		return err
	}
	// Metrics answer once the blocks are loaded, which is how the parent learns that.
	return errors.Join(metrics(ctx, *web), t.Close())
}

func replay(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(serveFloor, flag.ContinueOnError)
	listen := fs.String("listen", "", "gRPC address")
	web := fs.String("http", "", "address of the metrics")
	answers := fs.String("answers", "", "folder of the recorded answers")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- floor.Serve(ctx, l, *answers) }()
	return errors.Join(metrics(ctx, *web), <-served)
}

// metrics serves the metrics of this process until ctx ends.
func metrics(ctx context.Context, addr string) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.Handler())
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // it has no requests to finish
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
