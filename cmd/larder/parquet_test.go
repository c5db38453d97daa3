package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"larder/benchmarks/dataset"
)

// convertedDay writes the file of a Parquet bucket that says which blocks were converted.
func convertedDay(t *testing.T, dir string, ids ...ulid.ULID) (file string) {
	t.Helper()
	var day []byte
	for i, at := range []int64{dataset.Epoch, dataset.Epoch + 24*hour} { // the time range
		day = protowire.AppendVarint(
			protowire.AppendTag(day, protowire.Number(1+i), protowire.VarintType), uint64(at))
	}
	for _, id := range ids {
		day = protowire.AppendString(
			protowire.AppendTag(day, 6, protowire.BytesType), id.String())
	}
	file = filepath.Join(dir, "2024-01-01", "meta.pb")
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o777),
		os.WriteFile(file, day, 0o666), os.Chtimes(file, old, old)); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestParquetBucket: a block that was converted is not served while its day is in the Parquet
// bucket, and is once that is gone. Both buckets are folders of one: their metrics are told apart
// all the same.
func TestParquetBucket(t *testing.T) {
	dir := t.TempDir()
	metas, err := dataset.WholeMetric("wide", 1, wideSeries, 30_000).
		Write(t.Context(), filepath.Join(dir, "blocks"), dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []ulid.ULID
	for _, m := range metas {
		ids = append(ids, m.ULID)
	}
	file := convertedDay(t, filepath.Join(dir, "parquet"), ids...)
	prefixed := func(prefix string) string {
		return "{type: FILESYSTEM, config: {directory: " + dir + "}, prefix: " + prefix +
			", hedging_config: {enabled: true}}"
	}
	config := write(t, "parquet.yml", prefixed("parquet"))

	p := startProcess(
		t, prefixed("blocks"), "--objstore-parquet.config-file="+config,
		"--sync-block-duration=100ms",
	)
	p.await("readiness changed.*ready=true")
	if got := countSeries(t, p.series()); got != 0 {
		t.Errorf("got %d series of a converted block", got)
	}
	_, metrics := p.get("/metrics")
	for _, want := range []string{
		`thanos_blocks_meta_synced{state="parquet-converted"} 1`,
		`thanos_blocks_meta_synced{state="loaded"} 0`,
		`larder_catalog_parquet_files 1`,
		`thanos_objstore_bucket_operations_total{bucket="fs: ` + dir + `",operation="iter"}`,
		`thanos_objstore_bucket_operations_total{bucket="fs: ` + dir +
			` (parquet)",operation="iter"}`,
		`thanos_objstore_bucket_operations_total{bucket="fs: ` + dir +
			` (parquet)",operation="get"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	// A configuration that names another place needs a restart, as that of the bucket does.
	replace(t, config, []byte(prefixed("elsewhere")))
	p.await(
		"configuration reload failed.* kind=objstore-parquet .*--objstore-parquet.config-file " + config + ": only credentials can change while larder runs: prefix needs a restart",
	)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.await("blocks changed.* new=1")
	if got := countSeries(t, p.series()); got != wideSeries {
		t.Errorf(
			"got %d series of a block that is not converted any more, want %d", got, wideSeries,
		)
	}

	// One whose file cannot be used says so, and its blocks are served.
	if err := os.WriteFile(file, []byte("nonsense"), 0o666); err != nil {
		t.Fatal(err)
	}
	p.await("sync failed.* err=.*Parquet bucket: 2024-01-01/meta.pb: broken meta.pb")
	if got := countSeries(t, p.series()); got != wideSeries {
		t.Errorf("got %d series, want %d", got, wideSeries)
	}
}
