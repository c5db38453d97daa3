package clienttls

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// InForce returns an error if the certificate is expired or not yet valid.
func InForce(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("the certificate expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Errorf(
			"the certificate is not valid before %s", cert.NotBefore.UTC().Format(time.RFC3339),
		)
	}
	return nil
}

// CAPool parses the certificates of a PEM file. Expired certificates beside a valid one are usual.
// A file without a usable certificate is an error, because it would make every connection fail.
func CAPool(text []byte, now time.Time) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	var usable bool
	var last error
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		// Bundles of old authorities contain certificates that Go rejects. Skip them, same as
		// Thanos.
		if err != nil {
			last = err
			continue
		}
		pool.AddCert(cert)
		if err := InForce(cert, now); err != nil {
			last = err
			continue
		}
		usable = true
	}
	switch {
	case usable:
		return pool, nil
	case last != nil:
		return nil, last
	}
	return nil, errors.New("the file contains no certificate")
}
