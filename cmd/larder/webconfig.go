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

// webFile is the file of --http.config, Prometheus's web configuration. The library that serves by
// it reads it anew for each request and connection; here it is only looked at, so that what is
// wrong with it is said before a client finds out.
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
	all, err := w.read() // first: it explains what is wrong with the YAML
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

// checkCertificates looks at what the library lets pass: times, and a file of client authorities
// that shuts out every client.
func (w webFile) checkCertificates(conf *toolkit.TLSConfig, now time.Time) error {
	text, from, err := pemText("cert", conf.TLSCert, conf.TLSCertPath)
	if err == nil && len(text) > 0 { // else plain text
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

// pemText returns what stands under a key or in the file that key_file names, and which of them it
// is.
func pemText(key, inline, file string) (text []byte, from string, err error) {
	if file == "" {
		return []byte(inline), key, nil
	}
	text, err = os.ReadFile(file)
	return text, key + "_file " + file, err
}

// leafInForce looks at the first certificate of a PEM text: the server's own. Other things, a key
// for instance, may come before it.
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
	if readErr != nil { // there are no values to hide: err is about the same
		return fmt.Errorf("%s: %w", flag, redaction.File(err))
	}
	return fmt.Errorf("%s: %w", flag, redaction.NewDocument(text).Error(yamldoc.Plain(err)))
}
