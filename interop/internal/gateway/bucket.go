package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Bucket is the bucket that a gateway serves, and how.
type Bucket struct {
	// Dir is the bucket's folder.
	Dir string
	// Config is the bucket's YAML configuration; empty for a folder.
	Config string
	// DataDir is a folder that only this gateway uses.
	DataDir string
	// MinTime and MaxTime are --min-time and --max-time; zero is no bound.
	MinTime, MaxTime time.Time
}

// Flags returns the arguments with which `thanos store` and `larder store` serve the bucket. It
// writes the configuration file that they name into DataDir.
func (b Bucket) Flags() ([]string, error) {
	if err := os.MkdirAll(b.DataDir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(b.DataDir, "bucket.yml")
	yaml := b.Config
	if yaml == "" {
		yaml = fmt.Sprintf("type: FILESYSTEM\nconfig:\n  directory: %q\n", b.Dir)
	}
	if err := os.WriteFile(conf, []byte(yaml), 0o600); err != nil {
		return nil, err
	}
	args := []string{
		"--data-dir=" + filepath.Join(b.DataDir, "data"),
		"--objstore.config-file=" + conf,
	}
	if !b.MinTime.IsZero() {
		args = append(args, "--min-time="+b.MinTime.UTC().Format(time.RFC3339))
	}
	if !b.MaxTime.IsZero() {
		args = append(args, "--max-time="+b.MaxTime.UTC().Format(time.RFC3339))
	}
	return args, nil
}
