package clienttls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Config is the tls_config of a document, with Thanos's keys. The zero value trusts the system's
// authorities and sends no certificate.
type Config struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Open reads the files. It returns a nil Certificate if the configuration has none. It reads
// ca_file only once.
func (t *Config) Open(now time.Time) (*tls.Config, *Certificate, error) {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("ca_file: %w", err)
		}
		if conf.RootCAs, err = CAPool(text, now); err != nil {
			return nil, nil, fmt.Errorf("ca_file %s: %w", t.CAFile, err)
		}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return conf, nil, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, nil, errors.New("cert_file and key_file must be given together")
	}
	cert := &Certificate{certFile: t.CertFile, keyFile: t.KeyFile}
	if err := cert.Reload(now); err != nil {
		return nil, nil, err
	}
	conf.GetClientCertificate = cert.get
	return conf, cert, nil
}

// Certificate is a client certificate. It is read again for each connection, so that a rotated one
// needs no restart. If the files are not usable, for instance during a rotation, the last usable
// certificate is sent.
type Certificate struct {
	certFile, keyFile string

	mu   sync.Mutex       // guards good
	good *tls.Certificate // nil only until the first load
}

// Files returns the paths of the files.
func (c *Certificate) Files() []string { return []string{c.certFile, c.keyFile} }

// Reload reads the files. It returns an error and keeps the certificate if they are not usable.
func (c *Certificate) Reload(now time.Time) error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("cert_file: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("cert_file %s and key_file %s: %w", c.certFile, c.keyFile, err)
	}
	if err := InForce(pair.Leaf, now); err != nil {
		return fmt.Errorf("cert_file %s: %w", c.certFile, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.good = &pair
	return nil
}

// get implements tls.Config.GetClientCertificate.
func (c *Certificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_ = c.Reload(time.Now()) // internal/reload watches the files and reports errors
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.good, nil
}
