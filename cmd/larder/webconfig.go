package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
)

// webFile is the file of --http.config, Prometheus's web configuration. The library that serves by it reads it anew for each request
// and connection; here it is only looked at, so that what is wrong with it is said before a client finds out.
type webFile string

// webFixed is what the library settles when it begins to listen, whatever the file says later.
type webFixed struct {
	tls, http2 bool
	limit      toolkit.RateLimiterConfig
}

// changed names what differs.
func (f webFixed) changed(now webFixed) error {
	var keys []string
	if f.tls != now.tls {
		keys = append(keys, "to turn tls_server_config on or off")
	}
	if f.http2 != now.http2 {
		keys = append(keys, "a change of http_server_config.http2")
	}
	if f.limit != now.limit {
		keys = append(keys, "a change of rate_limit")
	}
	if keys == nil {
		return nil
	}
	return fmt.Errorf("needs a restart: %s", strings.Join(keys, ", "))
}

// check refuses what the library refuses, and a certificate that is not in force.
func (w webFile) check(now time.Time) (fixed webFixed, err error) {
	if w == "" {
		return fixed, nil
	}
	if err := toolkit.Validate(string(w)); err != nil {
		return fixed, w.wrap(err)
	}
	all, err := w.read()
	if err != nil {
		return fixed, w.wrap(err)
	}
	fixed = webFixed{tls: all.TLSConfig.IsEnabled(), http2: all.HTTPConfig.HTTP2, limit: all.RateLimiterConfig}
	return fixed, w.checkCertificate(&all.TLSConfig, now)
}

func (w webFile) checkCertificate(conf *toolkit.TLSConfig, now time.Time) (err error) {
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
	if all, err := w.read(); err == nil {
		conf := &all.TLSConfig
		for _, f := range []string{conf.TLSCertPath, conf.TLSKeyPath, conf.ClientCAs} {
			if f != "" {
				files = append(files, f)
			}
		}
	}
	return files
}

func (w webFile) read() (*toolkit.Config, error) {
	b, err := os.ReadFile(string(w))
	if err != nil {
		return nil, err
	}
	conf := toolkit.Config{HTTPConfig: toolkit.HTTPConfig{HTTP2: true}} // the library's default
	if err := yaml.UnmarshalStrict(b, &conf); err != nil {
		return nil, err
	}
	conf.TLSConfig.SetDirectory(filepath.Dir(string(w)))
	return &conf, nil
}

func (w webFile) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--http.config %s: %w", string(w), plainYAML(err))
}
