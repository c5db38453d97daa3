package inspection

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"larder/benchmarks/dataset"
	"larder/benchmarks/rawindex"
	"larder/internal/faultstore"
	"larder/internal/localfs"
	"larder/store/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScripts runs testdata/*.txt with a bucket in memory.
//
//	put NAME mint=H maxt=H [labels=(k=v,...)] [res=MS] [series=N] [sources=(NAMES)] [level=N]
//	                       a block without readable files; times are in hours
//	put NAME nofiles ...   a block whose meta.json states no files
//	real                   a block that the generator of benchmarks/dataset wrote
//	raw NAME mint=H maxt=H a block with an index of the series on stdin, in their order:
//	                       name=value,... for each
//	damage NAME at=N       flips a bit of the index
//	partial NAME           a block without meta.json
//	mark NAME OBJECT       stdin is the mark
//	meta NAME              stdin replaces the meta.json
//	remove OBJECT          of a block: NAME/file
//	other OBJECT           an object of no block
//	fail list | fail get=PATTERN [missing] | fail none
//	bucket [check] [gap=D] [min-time=T] | shards [count=N] [to=N] [rules below] | block NAME [check]
//	                       prints the report as JSON, then what was requested
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, file string) {
		s := newScript(t)
		datadriven.RunTest(t, file, s.run)
	})
}

type script struct {
	t      *testing.T
	memory *objstore.InMemBucket
	faults *faultstore.Faults
	bucket *faultstore.Bucket
	ids    map[string]ulid.ULID
}

func newScript(t *testing.T) *script {
	s := &script{
		t: t, memory: objstore.NewInMemBucket(), faults: faultstore.New(1),
		ids: map[string]ulid.ULID{},
	}
	s.bucket = faultstore.Wrap(s.memory, s.faults)
	return s
}

// id returns the ULID of a name, which grows with the number of names.
func (s *script) id(name string) ulid.ULID {
	id, ok := s.ids[name]
	if !ok {
		id = ulid.MustNew(1_700_000_000_000+uint64(len(s.ids)), strings.NewReader("0123456789"))
		s.ids[name] = id
	}
	return id
}

func (s *script) upload(name string, data []byte) {
	if err := s.memory.Upload(s.t.Context(), name, bytes.NewReader(data)); err != nil {
		s.t.Fatal(err)
	}
}

func hours(t *testing.T, d *datadriven.TestData, key string) int64 {
	var h int64
	d.ScanArgs(t, key, &h)
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(h) * time.Hour).UnixMilli()
}

// put uploads a block with these files.
func (s *script) put(d *datadriven.TestData, id ulid.ULID, index, chunks []byte) {
	level, resolution, series := 1, 0, 100
	d.MaybeScanArgs(s.t, "level", &level)
	d.MaybeScanArgs(s.t, "res", &resolution)
	d.MaybeScanArgs(s.t, "series", &series)
	sources := []string{id.String()}
	if d.HasArg("sources") {
		sources = nil
		for _, v := range arg(d, "sources") {
			sources = append(sources, s.id(v).String())
		}
	}
	external := map[string]string{}
	for _, v := range arg(d, "labels") {
		name, value, _ := strings.Cut(v, "=")
		external[name] = value
	}
	files := []map[string]any{
		{"rel_path": "index", "size_bytes": len(index)},
		{"rel_path": "chunks/000001", "size_bytes": len(chunks)},
	}
	if d.HasArg("nofiles") {
		files = nil
	}
	meta, err := json.Marshal(map[string]any{
		"ulid": id, "version": 1, "minTime": hours(s.t, d, "mint"),
		"maxTime":    hours(s.t, d, "maxt"),
		"stats":      map[string]any{"numSeries": series, "numChunks": 2 * series},
		"compaction": map[string]any{"level": level, "sources": sources},
		"thanos": map[string]any{
			"version": 1, "labels": external, "files": files,
			"downsample": map[string]any{"resolution": resolution},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.upload(id.String()+"/meta.json", meta)
	s.upload(id.String()+"/index", index)
	s.upload(id.String()+"/chunks/000001", chunks)
}

// arg returns the values of an argument, nil for none.
func arg(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

// object returns the name of an object given as NAME/file.
func (s *script) object(name string) string {
	block, file, _ := strings.Cut(name, "/")
	return s.id(block).String() + "/" + file
}

// real uploads a block of the generator.
func (s *script) real() {
	dir := s.t.TempDir()
	layout := dataset.Bench50k(1)
	layout.Blocks = []dataset.Block{{
		ID: s.id("real"), MinTime: hour(0), MaxTime: hour(2), Interval: 60_000,
		Series: dataset.Service{
			Name: "checkout", Namespace: "shop", Pods: 3, Handlers: 2,
		}.Series(1),
	}}
	if _, err := layout.Write(s.t.Context(), dir, dataset.WriteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		s.upload(name, data)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func hour(n int) int64 { return time.Date(2026, 1, 1, n, 0, 0, 0, time.UTC).UnixMilli() }

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	first := func() string { return d.CmdArgs[0].Key }
	switch d.Cmd {
	case "put":
		s.put(d, s.id(first()), make([]byte, 1000), make([]byte, 5000))
	case "real":
		s.real()
	case "raw":
		var series []rawindex.Series
		for _, line := range strings.Split(d.Input, "\n") {
			one := rawindex.Series{Chunks: []rawindex.Chunk{{Ref: 8, MaxTime: 1}}}
			for _, pair := range strings.Split(line, ",") {
				name, value, _ := strings.Cut(pair, "=")
				one.Labels = append(one.Labels, rawindex.Label{Name: name, Value: value})
			}
			series = append(series, one)
		}
		index, err := rawindex.Encode(series)
		if err != nil {
			t.Fatal(err)
		}
		s.put(d, s.id(first()), index, make([]byte, 5000))
	case "damage":
		name := s.id(first()).String() + "/index"
		data := slices.Clone(s.memory.Objects()[name])
		at := 0
		d.ScanArgs(t, "at", &at)
		data[at] ^= 1
		s.upload(name, data)
	case "partial":
		s.upload(s.object(first()+"/index"), make([]byte, 10))
		s.upload(s.object(first()+"/chunks/000001"), make([]byte, 10))
	case "mark":
		s.upload(s.object(first()+"/"+d.CmdArgs[1].Key), []byte(d.Input))
	case "meta":
		s.upload(s.object(first()+"/meta.json"), []byte(d.Input))
	case "remove":
		if err := s.memory.Delete(t.Context(), s.object(first())); err != nil {
			t.Fatal(err)
		}
	case "other":
		s.upload(first(), nil)
	case "fail":
		s.fail(d)
	case "bucket", "shards", "block":
		s.bucket.Forget()
		r, err := s.report(d)
		if err != nil {
			return fmt.Sprintf("error: %v\n", err)
		}
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n" + s.requests()
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return ""
}

func (s *script) fail(d *datadriven.TestData) {
	a := d.CmdArgs[0]
	switch a.Key {
	case "list":
		s.faults.Set(faultstore.Rule{Kind: faultstore.ListingError, At: 1})
	case "none":
		s.faults.Heal()
	case "get":
		kind := faultstore.ServerError
		if d.HasArg("missing") {
			kind = faultstore.Vanished
		}
		s.faults.Set(faultstore.Rule{Kind: kind, Match: func(_, name string) bool {
			ok, _ := path.Match(s.object(a.Vals[0]), name)
			return ok
		}})
	}
}

// requests counts the requests by operation.
func (s *script) requests() string {
	counts := map[string]int{}
	for _, c := range s.bucket.Calls() {
		counts[c.Op]++
	}
	var parts []string
	for op, n := range counts {
		parts = append(parts, fmt.Sprintf("%s %d", op, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ") + "\n"
}

func (s *script) inspector() *Inspector {
	i, err := New(Options{Bucket: s.bucket, Dir: localfs.At(s.t.TempDir())})
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// report returns the report that a command asks for.
func (s *script) report(d *datadriven.TestData) (any, error) {
	ctx := context.Background()
	opts := catalog.Options{Bucket: s.bucket, IgnoreDeletionMarksDelay: 24 * time.Hour}
	if d.HasArg("min-time") {
		var text string
		d.ScanArgs(s.t, "min-time", &text)
		var err error
		if opts.MinTime, err = catalog.ParseTimeOrDuration(text); err != nil {
			return nil, err
		}
	}
	take := func(o catalog.InventoryOptions) (*catalog.Inventory, error) {
		return catalog.TakeInventory(ctx, opts, o)
	}
	switch d.Cmd {
	case "shards":
		var o ShardsOptions
		d.MaybeScanArgs(s.t, "count", &o.Count)
		d.MaybeScanArgs(s.t, "to", &o.To)
		rules, err := catalog.ParseRelabelConfig([]byte(d.Input))
		if err != nil {
			return nil, err
		}
		opts.Relabel = rules
		if h, ok := catalog.FindHashmod(rules); ok {
			o.Hashmod, opts.Relabel = &h, h.Others()
		}
		inv, err := take(catalog.InventoryOptions{})
		if err != nil {
			return nil, err
		}
		return Shards(inv, "test", o), nil
	case "block":
		inv, err := take(catalog.InventoryOptions{Block: s.id(d.CmdArgs[0].Key)})
		if err != nil {
			return nil, err
		}
		i := s.inspector()
		defer i.Close()
		return i.Block(ctx, inv.Entries[0], "test", BlockOptions{
			Labels: 3, Check: d.HasArg("check"),
		})
	}
	inv, err := take(catalog.InventoryOptions{Files: true})
	if err != nil {
		return nil, err
	}
	o := BucketOptions{MinGap: time.Minute}
	if d.HasArg("check") {
		var blocks []*catalog.Block
		for _, e := range inv.Entries {
			if e.Block != nil {
				blocks = append(blocks, e.Block)
			}
		}
		i := s.inspector()
		defer i.Close()
		if o.Irregular, o.Unread, err = i.Check(ctx, blocks, nil); err != nil {
			return nil, err
		}
	}
	r := Bucket(inv, "test", o)
	for i := range r.Partial { // the bucket's own clock
		if at := r.Partial[i].Modified; at != nil && !at.IsZero() {
			*at = time.Unix(0, 0).UTC()
		}
	}
	return r, nil
}
