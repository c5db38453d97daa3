package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/http2"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{
			CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// issue signs a certificate that expires at a time.
func (a *authority) issue(until time.Time) (cert, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "larder"}, NotBefore: until.Add(
			-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{
			x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"larder"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

func (a *authority) pair(until time.Time) (tls.Certificate, error) {
	cert, key, err := a.issue(until)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// prepareTLS gives larder a certificate and makes it require client certificates.
func prepareTLS(_ context.Context, t *target) error {
	a, err := newAuthority()
	if err != nil {
		return err
	}
	cert, key, err := a.issue(time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	t.ca, t.cert, t.key = t.file("client-ca"), t.file("cert"), t.file("key")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	for name, b := range map[string][]byte{"cert": cert, "key": key, "client-ca": ca} {
		if err := os.WriteFile(t.file(name), b, 0o600); err != nil {
			return err
		}
		t.flags = append(t.flags, "--grpc-server-tls-"+name+"="+t.file(name))
	}
	// The attack has a certificate that was valid once.
	if cert, key, err = a.issue(time.Now().Add(-time.Minute)); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(t.file("expired"), cert, 0o600),
		os.WriteFile(t.file("expired-key"), key, 0o600))
}

// file returns the path of a PEM file.
func (t *target) file(name string) string { return filepath.Join(t.dir, name+".pem") }

// runTLS tries to connect without a certificate of the authority, or with an older version of TLS.
func runTLS(ctx context.Context, t *target) (string, error) {
	other, err := newAuthority()
	if err != nil {
		return "", err
	}
	foreign, err := other.pair(time.Now().Add(time.Hour))
	if err != nil {
		return "", err
	}
	valid, err := tls.LoadX509KeyPair(t.cert, t.key)
	if err != nil {
		return "", err
	}
	former, err := tls.LoadX509KeyPair(t.file("expired"), t.file("expired-key"))
	if err != nil {
		return "", err
	}
	own := []tls.Certificate{valid}
	tries := map[string]*tls.Config{
		"no certificate":           {},
		"one of another authority": {Certificates: []tls.Certificate{foreign}},
		"one that has expired":     {Certificates: []tls.Certificate{former}},
		"TLS 1.2":                  {Certificates: own, MaxVersion: tls.VersionTLS12},
		"TLS 1.0": {Certificates: own, MinVersion: tls.VersionTLS10,
			MaxVersion: tls.VersionTLS10},
		"plain text": nil,
	}
	if ok, err := t.getsIn(ctx, &tls.Config{Certificates: own}); !ok {
		return "", fmt.Errorf("a client with a certificate does not get in: %w", err)
	}
	for what, conf := range tries {
		if ok, _ := t.getsIn(ctx, conf); ok {
			t.got("a client got in: %s", what)
		}
	}
	return fmt.Sprintf("%d ways in without a valid certificate", len(tries)), nil
}

// emptySettings is an HTTP/2 frame.
const emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// getsIn reports whether larder speaks HTTP/2 with a client. With TLS 1.3 a client learns only by
// reading that its certificate was rejected.
func (t *target) getsIn(ctx context.Context, conf *tls.Config) (bool, error) {
	nc, err := dialer(attacker(0)).DialContext(ctx, "tcp", t.larder.GRPC)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	if conf != nil {
		conf.InsecureSkipVerify, conf.NextProtos = true, []string{
			"h2"} // an attacker requires no proof
		nc = tls.Client(nc, conf)
	}
	if err := nc.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false, err
	}
	// Send the preface and empty settings, which the server answers with its own.
	if _, err := nc.Write([]byte(http2.ClientPreface + emptySettings)); err != nil {
		return false, err
	}
	b := make([]byte, 9)
	n, err := nc.Read(b)
	if n == 0 {
		return false, err
	}
	return bytes.HasPrefix(b[3:], []byte{4}), nil
}
