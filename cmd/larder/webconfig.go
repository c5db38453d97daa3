package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"

	"larder/internal/clienttls"
	"larder/internal/redaction"
	"larder/internal/yamldoc"
)

// webFile is the path of --http.config, Prometheus's web configuration. The library that applies it
// reads the file for each request and connection. webFile only checks it, so that errors are
// reported before a client sees them.
type webFile string

// webFixed has the settings that the library applies only when it begins to listen.
type webFixed struct {
	tls, http2 bool
	limit      toolkit.RateLimiterConfig
}

// changed returns an error that names the changed settings, nil if none changed.
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

// check returns an error for a file that the library rejects, or with a certificate that is expired
// or not yet valid.
func (w webFile) check(now time.Time) (fixed webFixed, err error) {
	if w == "" {
		return fixed, nil
	}
	all, err := w.read() // first, because its errors explain the YAML
	if err != nil {
		return fixed, w.wrap(err)
	}
	if err := toolkit.Validate(string(w)); err != nil {
		return fixed, w.wrap(err)
	}
	fixed = webFixed{
		tls:   all.TLSConfig.IsEnabled(),
		http2: all.HTTPConfig.HTTP2,
		limit: all.RateLimiterConfig,
	}
	return fixed, w.checkCertificates(&all.TLSConfig, now)
}

// checkCertificates checks what the library does not: the validity of certificates, and that the
// file of client authorities has a usable one.
func (w webFile) checkCertificates(conf *toolkit.TLSConfig, now time.Time) error {
	text, from, err := pemText("cert", conf.TLSCert, conf.TLSCertPath)
	if err == nil && len(text) > 0 { // otherwise there is no TLS
		err = leafInForce(text, now)
	}
	if err != nil {
		return w.wrap(fmt.Errorf("%s: %w", from, err))
	}
	text, from, err = pemText("client_ca", conf.ClientCAsText, conf.ClientCAs)
	if err == nil && (conf.ClientCAs != "" || len(text) > 0) {
		_, err = clienttls.CAPool(text, now)
	}
	if err != nil {
		return w.wrap(fmt.Errorf("%s: %w", from, err))
	}
	return nil
}

// pemText returns the value of a key, or the contents of the file that key_file names. from names
// the source.
func pemText(key, inline, file string) (text []byte, from string, err error) {
	if file == "" {
		return []byte(inline), key, nil
	}
	text, err = os.ReadFile(file)
	return text, key + "_file " + file, err
}

// leafInForce checks the first certificate of a PEM text, which is the server's own. Other blocks,
// for instance a key, may precede it.
func leafInForce(text []byte, now time.Time) error {
	block, rest := pem.Decode(text)
	for block != nil && block.Type != "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return errors.New("the file contains no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	return clienttls.InForce(cert, now)
}

// files returns the file and, if it can be read, the files that it names.
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
		return nil, yamldoc.Shape{Of: conf}.Explain(b, err)
	}
	conf.TLSConfig.SetDirectory(filepath.Dir(string(w)))
	return &conf, nil
}

func (w webFile) wrap(err error) error {
	if err == nil {
		return nil
	}
	flag := "--http.config"
	if redaction.Path(string(w)) {
		flag += " " + string(w)
	}
	text, readErr := os.ReadFile(string(w))
	if readErr != nil { // there are no values to hide: err has the same cause
		return fmt.Errorf("%s: %w", flag, redaction.File(err))
	}
	return fmt.Errorf("%s: %w", flag, redaction.NewDocument(text).Error(yamldoc.Plain(err)))
}
