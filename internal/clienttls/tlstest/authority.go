// Package tlstest issues certificates for tests.
//
// New creates a certificate authority. Its methods issue certificates as PEM, as files, or as the
// configuration of a client. It is the only code in this module that creates certificates for
// tests. An Authority owns its key. It has no locks; use it from one goroutine.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority that no pool contains yet.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New returns an authority that is valid for an hour. Errors of its methods end the test.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	})
	return a
}

// sign creates a key and a certificate for it. The first certificate is self-signed.
func (a *Authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.check(err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	a.check(err)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	a.check(err)
	cert, err := x509.ParseCertificate(der)
	a.check(err)
	return cert, key
}

// Issue returns a certificate and its key as PEM. The certificate is for servers and clients, and
// is valid from now+from to now+to. hosts are names and IP addresses; the default is 127.0.0.1.
func (a *Authority) Issue(from, to time.Duration, hosts ...string) (certPEM, keyPEM []byte) {
	a.t.Helper()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "larder test"},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, key := a.sign(template)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	a.check(err)
	return encode("CERTIFICATE", cert.Raw), encode("PRIVATE KEY", keyDER)
}

// Files writes the result of Issue to files and returns their paths.
func (a *Authority) Files(from, to time.Duration, hosts ...string) (certFile, keyFile string) {
	a.t.Helper()
	cert, key := a.Issue(from, to, hosts...)
	return a.write("tls.crt", cert), a.write("tls.key", key)
}

// PEM returns the certificate of the authority.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// File writes the certificate of the authority to a file and returns its path.
func (a *Authority) File() string {
	a.t.Helper()
	return a.write("ca.crt", a.PEM())
}

// Anonymous returns a client configuration that trusts only the authority.
func (a *Authority) Anonymous() *tls.Config {
	conf := &tls.Config{RootCAs: x509.NewCertPool()}
	conf.RootCAs.AddCert(a.cert)
	return conf
}

// Client returns a client configuration that trusts only the authority and sends a certificate of
// it.
func (a *Authority) Client() *tls.Config {
	a.t.Helper()
	conf := a.Anonymous()
	pair, err := tls.X509KeyPair(a.Issue(-time.Hour, time.Hour))
	a.check(err)
	// Unlike Certificates, this sends the certificate whatever authorities the server accepts, so
	// that a test can send a certificate of another authority.
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &pair, nil
	}
	return conf
}

func (a *Authority) write(name string, content []byte) string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), name)
	a.check(os.WriteFile(path, content, 0o600))
	return path
}

func (a *Authority) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
