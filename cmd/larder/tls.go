package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"larder/internal/clienttls"
	"larder/internal/redaction"
)

// serverTLS has the flags of the gRPC server's TLS. The zero value means no TLS.
type serverTLS struct {
	certFile, keyFile, clientCAFile, minVersion string
	// ciphers apply only below TLS 1.3, whose ciphers are fixed. nil is Go's choice, also for
	// curves.
	ciphers []uint16
	curves  []tls.CurveID
}

func (t *serverTLS) flags(f flagger) {
	flag(f, "grpc-server-tls-cert", "", &t.certFile, text,
		"TLS certificate file of the gRPC server. Empty = no TLS.").PlaceHolder("<file-path>")
	flag(f, "grpc-server-tls-key", "", &t.keyFile, text,
		"TLS key file of the gRPC server. Empty = no TLS.").PlaceHolder("<file-path>")
	flag(f, "grpc-server-tls-client-ca", "", &t.clientCAFile, text,
		"CA file to verify client certificates with. Clients without a certificate are rejected. "+
			"Empty = accept all clients.").PlaceHolder("<file-path>")
	flag(f, "grpc-server-tls-min-version", "1.3", &t.minVersion, oneOf("1.0", "1.1", "1.2", "1.3"),
		"Minimum TLS version of the gRPC server: 1.0, 1.1, 1.2 or 1.3.")
	listFlag(f, "grpc-server-tls-ciphers", &t.ciphers, cipherSuite,
		"Cipher suite of the gRPC server for TLS 1.2 and below, by its name in Go's crypto/tls. "+
			"May be repeated. Default: Go's choice. Cipher suites of TLS 1.3 are fixed.",
	).PlaceHolder("NAME")
	listFlag(f, "grpc-server-tls-curves", &t.curves, curve,
		"Curve (key exchange) of the gRPC server's TLS: CurveP256, CurveP384, CurveP521, X25519, "+
			"X25519MLKEM768, SecP256r1MLKEM768 or SecP384r1MLKEM1024. May be repeated. "+
			"Default: Go's choice.").PlaceHolder("NAME")
}

// files returns the files of the TLS configuration.
func (t *serverTLS) files() []string {
	return slices.DeleteFunc(
		[]string{t.certFile, t.keyFile, t.clientCAFile}, func(f string) bool { return f == "" },
	)
}

// certificates provides the TLS configuration of each connection from the current files, so that
// rotated certificates and CAs need no restart. If the files are not usable, for instance during a
// rotation, the last usable configuration applies.
type certificates struct {
	flags *serverTLS

	mu   sync.Mutex        // guards the fields below; held while the files are read
	used [sha256.Size]byte // hash of the files of good
	good *tls.Config       // nil only until the first load
}

// newCertificates reads the files for the first time. It returns nil without TLS.
func newCertificates(t *serverTLS) (*certificates, error) {
	switch {
	case t.certFile == "" && t.keyFile == "" && t.clientCAFile != "":
		return nil, errors.New(
			"--grpc-server-tls-client-ca needs --grpc-server-tls-cert and --grpc-server-tls-key",
		)
	case t.certFile == "" && t.keyFile == "":
		return nil, nil
	case t.certFile == "" || t.keyFile == "":
		return nil, errors.New(
			"--grpc-server-tls-cert and --grpc-server-tls-key must be given together",
		)
	}
	c := &certificates{flags: t}
	return c, c.reload()
}

// reload reads the files. It returns if they are unchanged. Unusable files are checked again each
// time, because a certificate may become valid with time.
func (c *certificates) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.flags.read()
	if err != nil {
		return err
	}
	sum := f.sum()
	if c.good != nil && sum == c.used {
		return nil
	}
	conf, err := c.flags.config(f, time.Now())
	if err == nil {
		c.used, c.good = sum, conf
	}
	return err
}

// server returns the configuration to listen with.
func (c *certificates) server() *tls.Config {
	return &tls.Config{
		// grpc checks it; GetConfigForClient decides
		MinVersion: tlsVersion(c.flags.minVersion),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			_ = c.reload() // internal/reload watches the files and reports errors
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.good, nil
		},
	}
}

// tlsPEM is the contents of the files.
type tlsPEM struct{ cert, key, clientCA []byte }

func (f *tlsPEM) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, b := range [][]byte{f.cert, f.key, f.clientCA} {
		one := sha256.Sum256(b)
		h.Write(one[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (t *serverTLS) read() (f tlsPEM, err error) {
	for _, file := range []struct {
		flag, path string
		to         *[]byte
	}{
		{"cert", t.certFile, &f.cert}, {"key", t.keyFile, &f.key},
		{"client-ca", t.clientCAFile, &f.clientCA},
	} {
		if file.path == "" {
			continue
		}
		if *file.to, err = os.ReadFile(file.path); err != nil {
			return f, fmt.Errorf("--grpc-server-tls-%s: %w", file.flag, redaction.File(err))
		}
	}
	return f, nil
}

func (t *serverTLS) config(f tlsPEM, now time.Time) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf(
			"--grpc-server-tls-cert %s and --grpc-server-tls-key %s: %w", t.certFile, t.keyFile,
			err,
		)
	}
	if err := clienttls.InForce(pair.Leaf, now); err != nil {
		return nil, fmt.Errorf("--grpc-server-tls-cert %s: %w", t.certFile, err)
	}
	conf := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tlsVersion(t.minVersion),
		CipherSuites: t.ciphers, CurvePreferences: t.curves,
		NextProtos: []string{"h2"}, // grpc sets it on the outer configuration only
		// A resumed session would accept a client certificate whose CA was replaced meanwhile.
		SessionTicketsDisabled: true,
	}
	if t.clientCAFile != "" {
		if conf.ClientCAs, err = clienttls.CAPool(f.clientCA, now); err != nil {
			return nil, fmt.Errorf("--grpc-server-tls-client-ca %s: %w", t.clientCAFile, err)
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

// cipherSuite parses the name of a secure cipher suite of crypto/tls, same as Thanos.
func cipherSuite(name string) (uint16, error) {
	var known []string
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			return s.ID, nil
		}
		known = append(known, s.Name)
	}
	return 0, fmt.Errorf("got %q, want one of %s", name, strings.Join(known, ", "))
}

// curve parses the name of a curve of crypto/tls, same as Thanos.
func curve(name string) (tls.CurveID, error) {
	known := []tls.CurveID{
		tls.CurveP256, tls.CurveP384, tls.CurveP521, tls.X25519,
		tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024,
	}
	var names []string
	for _, id := range known {
		if id.String() == name {
			return id, nil
		}
		names = append(names, id.String())
	}
	return 0, fmt.Errorf("got %q, want one of %s", name, strings.Join(names, ", "))
}
