package dataset_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
)

func indexVersion(t *testing.T, blockDir string) byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(blockDir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	return b[4]
}

func TestSetIndexV3(t *testing.T) {
	dir, metas := write(t, dataset.WholeMetric("v3", 1, 200, 60_000), dataset.WriteOptions{})
	block := filepath.Join(dir, metas[0].ULID.String())
	want := samples(t, block)
	if err := dataset.SetIndexV3(block); err != nil {
		t.Fatal(err)
	}
	if v := indexVersion(t, block); v != 3 {
		t.Errorf("version %d", v)
	}
	if diff := cmp.Diff(want, samples(t, block)); diff != "" {
		t.Errorf("Prometheus reads another version: %s", diff)
	}
	if err := dataset.SetIndexV3(block); err == nil {
		t.Error("a second call succeeded")
	}
}

func TestWriteV1(t *testing.T) {
	dir := t.TempDir()
	external := labels.FromStrings("cluster", "old")
	m, err := dataset.WriteV1(dir, external)
	if err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(dir, m.ULID.String())
	if v := indexVersion(t, block); v != 1 {
		t.Errorf("version %d", v)
	}
	onDisk, err := dataset.ReadMeta(block)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, onDisk); diff != "" {
		t.Errorf("meta.json: %s", diff)
	}
	if got := samples(t, block); len(got) != 102 ||
		!labels.Equal(labels.FromMap(m.Thanos.Labels), external) {
		t.Errorf("%d series, labels %v", len(got), m.Thanos.Labels)
	}
}
