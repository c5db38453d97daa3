package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
)

// webFile is the file of --http.config, Prometheus's web configuration. The library that serves by it reads it anew for each request
// and connection; here it is only looked at, so that what is wrong with it is said before a client finds out.
type webFile string

// check refuses what the library refuses, and a certificate that is not in force.
func (w webFile) check(now time.Time) error {
	if w == "" {
		return nil
	}
	if err := toolkit.Validate(string(w)); err != nil {
		return w.wrap(err)
	}
	conf, err := w.tls()
	if err != nil {
		return w.wrap(err)
	}
	text, from := []byte(conf.TLSCert), "cert"
	if conf.TLSCertPath != "" {
		from = "cert_file " + conf.TLSCertPath
		if text, err = os.ReadFile(conf.TLSCertPath); err != nil {
			return w.wrap(fmt.Errorf("cert_file: %w", err))
		}
	}
	if len(text) == 0 {
		return nil // plain text
	}
	block, _ := pem.Decode(text) // the leaf comes first
	if block == nil {
		return w.wrap(fmt.Errorf("%s holds no certificate", from))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		err = inForce(cert, now)
	}
	if err != nil {
		return w.wrap(fmt.Errorf("%s: %w", from, err))
	}
	return nil
}

// files are the file and those that it names, as far as it can be read.
func (w webFile) files() []string {
	if w == "" {
		return nil
	}
	files := []string{string(w)}
	if conf, err := w.tls(); err == nil {
		for _, f := range []string{conf.TLSCertPath, string(conf.TLSKeyPath), conf.ClientCAs} {
			if f != "" {
				files = append(files, f)
			}
		}
	}
	return files
}

func (w webFile) tls() (*toolkit.TLSConfig, error) {
	b, err := os.ReadFile(string(w))
	if err != nil {
		return nil, err
	}
	var conf toolkit.Config
	if err := yaml.UnmarshalStrict(b, &conf); err != nil {
		return nil, err
	}
	conf.TLSConfig.SetDirectory(filepath.Dir(string(w)))
	return &conf.TLSConfig, nil
}

func (w webFile) wrap(err error) error { return fmt.Errorf("--http.config %s: %w", string(w), plainYAML(err)) }
