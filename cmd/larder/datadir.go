package main

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/datadir"
	"larder/internal/localfs"
)

// dataDirConfig has the flags of the data directory.
type dataDirConfig struct {
	path             string
	cacheIndexHeader bool // false: there is no data directory
}

func (c *dataDirConfig) flags(f flagger) {
	flag(f, "data-dir", "./data", &c.path, text,
		"Directory for index headers and the last known list of blocks, in <data-dir>/larder. "+
			"It can be deleted at any time: larder rebuilds all of it.")
	boolFlag(f, "cache-index-header", "true", &c.cacheIndexHeader,
		"Keep index headers on disk. With --no-cache-index-header they are kept in memory "+
			"and --data-dir is not used.")
}

// openDataDir opens <data-dir>/larder. larder uses a folder of its own, because Thanos removes
// unknown block folders. It is an error if another process uses it. A directory that cannot be used
// is not an error, because larder can work without it.
func openDataDir(dir string, reg prometheus.Registerer) (*datadir.Dir, error) {
	d, err := datadir.Open(localfs.At(dir, "larder"))
	if errors.Is(err, datadir.ErrInUse) {
		return nil, fmt.Errorf("--data-dir %s: %w: each larder needs a directory of its own", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_data_dir_usable",
		Help: "1 while the data directory exists and is locked by this process, " +
			"0 while larder keeps nothing on disk because it cannot use the directory.",
	}, func() float64 {
		if d.Usable() {
			return 1
		}
		return 0
	}))
	return d, nil
}
