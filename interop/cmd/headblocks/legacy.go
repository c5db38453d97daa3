//go:build !current

package main

import (
	"errors"

	"github.com/prometheus/prometheus/tsdb"
)

func useNewest(*tsdb.HeadOptions) error {
	return errors.New("this version of Prometheus does not know the newest encodings")
}
