package neighbour

import (
	"context"
	"os"
	"path/filepath"

	"larder/interop/internal/process"
)

// Prometheus is a running Prometheus server and a client of its API.
type Prometheus struct {
	*process.Process
	*Client
	HTTPAddr string
	// Dir is the folder of its TSDB.
	Dir string
}

// StartPrometheus runs a Prometheus server that scrapes nothing and accepts remote writes. dir is
// for its files, config is its whole configuration. Its blocks span two hours and are not compacted
// further, as a sidecar requires.
func StartPrometheus(
	ctx context.Context, bin, dir, config string, extra ...string,
) (*Prometheus, error) {
	addrs, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	p := &Prometheus{HTTPAddr: addrs[0], Dir: filepath.Join(dir, "tsdb")}
	conf := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(conf, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p.Process, err = process.Start(ctx, process.Options{
		Name: "prometheus", Bin: bin, Dir: dir, Ready: process.HTTP("http://" + p.HTTPAddr + "/-/ready"),
		Args: append([]string{
			"--config.file=" + conf, "--storage.tsdb.path=" + p.Dir,
			"--web.listen-address=" + p.HTTPAddr, "--web.enable-remote-write-receiver",
			"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
			"--log.level=warn",
		}, extra...),
	})
	if err != nil {
		return nil, err
	}
	p.Client = NewClient("http://" + p.HTTPAddr)
	return p, nil
}
