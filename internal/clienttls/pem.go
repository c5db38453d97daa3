package clienttls

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// InForce refuses a certificate that nobody would accept at this time.
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

// CAPool takes in the certificates of a PEM file. Old ones beside a new one are usual; a file with
// nothing usable is refused, since it would shut out everybody.
func CAPool(text []byte, now time.Time) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	var usable bool
	var last error
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		// bundles of old authorities have certificates that Go does not take; Thanos passes over
		// them, too
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
	return nil, errors.New("the file holds no certificate")
}
