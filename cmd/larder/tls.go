package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
)

// serverTLS names the files of the gRPC server's TLS. The zero value means plain text.
type serverTLS struct {
	certFile, keyFile, clientCAFile, minVersion string
}

// check reads the files as server does and forgets them.
func (t serverTLS) check() error {
	_, err := t.load()
	return err
}

// server returns nil for plain text. The files are read again at every handshake (connections are few and last long), so that a
// rotated certificate needs no restart; while they cannot be read, the last good ones serve on.
func (t serverTLS) server(logger *slog.Logger) (*tls.Config, error) {
	first, err := t.load()
	if first == nil || err != nil {
		return nil, err
	}
	var last atomic.Pointer[tls.Config]
	last.Store(first)
	outer := first.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now, err := t.load()
		if err != nil {
			logger.Warn("gRPC TLS: keeping the last certificate", "err", err)
			return last.Load(), nil
		}
		last.Store(now)
		return now, nil
	}
	return outer, nil
}

func (t serverTLS) load() (*tls.Config, error) {
	if t.certFile == "" && t.keyFile == "" {
		if t.clientCAFile != "" {
			return nil, errors.New("--grpc-server-tls-client-ca needs --grpc-server-tls-cert and --grpc-server-tls-key")
		}
		return nil, nil
	}
	if t.certFile == "" || t.keyFile == "" {
		return nil, errors.New("--grpc-server-tls-cert and --grpc-server-tls-key must be given together")
	}
	pair, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--grpc-server-tls-cert %s and --grpc-server-tls-key %s: %w", t.certFile, t.keyFile, err)
	}
	// NextProtos is for grpc, which sets it on the outer configuration only.
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tlsVersion(t.minVersion), NextProtos: []string{"h2"}}
	if t.clientCAFile != "" {
		pem, err := os.ReadFile(t.clientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--grpc-server-tls-client-ca: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--grpc-server-tls-client-ca %s holds no certificate", t.clientCAFile)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// tlsVersion maps the flag's values; 1.3 is its default.
func tlsVersion(s string) uint16 {
	switch s {
	case "1.0":
		return tls.VersionTLS10
	case "1.1":
		return tls.VersionTLS11
	case "1.2":
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}
