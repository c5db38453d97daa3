package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/internal/faultstore/s3server"
)

const bucketName = "blocks"

func main() {
	app := kingpin.New("bucketserver", "Serve a folder as an S3 bucket and record the requests.")
	dir := app.Flag("dir", "The folder to serve.").Required().String()
	address := app.Flag("address", "Listen address; port 0 is a free port.").
		Default("127.0.0.1:0").
		String()
	firstByte := app.Flag("first-byte", "Time before an answer begins; 0s is no delay.").
		Default("0s").
		Duration()
	bandwidth := app.Flag("bytes-per-second", "Bandwidth of one answer; 0 is no limit.").
		Default("0").
		Int64()
	kingpin.MustParse(app.Parse(os.Args[1:]))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, *address, s3server.Options{
		Dir: *dir, Bucket: bucketName,
		Latency: s3server.Latency{FirstByte: *firstByte, BytesPerSecond: *bandwidth},
	})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bucketserver:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, address string, opts s3server.Options) (err error) {
	bucket, err := s3server.New(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	config, err := configuration(l.Addr().String())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Println(config)

	var r recorder
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/requests", r.report)
	mux.Handle("/", r.record(bucket))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return srv.Close()
	}
}

// configuration returns what --objstore.config takes for the server, in JSON, which is YAML too.
func configuration(endpoint string) (string, error) {
	b, err := json.Marshal(map[string]any{
		"type": "S3",
		"config": map[string]any{
			"bucket": bucketName, "endpoint": endpoint, "region": "test", "insecure": true,
			"access_key": "larder", "secret_key": "larder-secret",
		},
	})
	return string(b), err
}
