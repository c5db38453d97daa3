package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"

	"larder/internal/faultstore"
	"larder/internal/localfs"
)

// TestScripts runs testdata/scripts/*.txt with a bucket, a catalog, and a clock that only `advance`
// moves.
//
//	new [parquet] [discovery=recursive] [min-time=T] [max-time=T] [consistency=D] [marks-delay=D] [opened=no] [no-times] [fresh]
//	                       (re)starts the process on the same bucket, in the same or a fresh data directory; stdin: relabel rules
//	put ID mint= maxt= [res=] [ext=(k=v,...)] [sources=(IDS)] [source=S] [age=D] [uploaded=D] [level=N]
//	partial ID             a block without meta.json
//	meta ID                stdin replaces a block's meta.json
//	mark ID ago=D | mark ID content=S | unmark ID | delete ID [file=F]
//	fail list=N | fail get=PATTERN | fail none
//	fail short-list=N      listings end after N entries, without an error
//	fail missing=PATTERN | fail denied=PATTERN
//	                       objects that appear to be missing, or to which access is denied
//	meta.pb DIR mint= maxt= blocks=(IDS) | meta.pb DIR content=S | mark.pb DIR | delete.pb DIR
//	                       a day in the Parquet bucket, which `new parquet` has
//	fail-parquet list=N | fail-parquet get=PATTERN | fail-parquet none
//	sync | refresh         prints the error, then the requests, then the view if it changed
//	tombstone ID | opened ID | advance D | damage ID | damage catalog | view | states | broken | saved
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, file string) {
		synctest.Test(t, func(t *testing.T) {
			s := &script{
				bucket:  newTestBucket(),
				parquet: newTestBucket(),
				dir:     t.TempDir(),
				ids:     map[string]ulid.ULID{},
				names:   map[ulid.ULID]string{},
			}
			datadriven.RunTest(t, file, s.run)
			if s.catalog != nil {
				s.catalog.Close()
			}
		})
	})
}

type script struct {
	bucket  *testBucket
	parquet *testBucket
	hasPq   bool // the catalog has the Parquet bucket
	dir     string
	catalog *Catalog
	opened  map[ulid.ULID]bool
	ids     map[string]ulid.ULID
	names   map[ulid.ULID]string
	changes int
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	id := func() ulid.ULID {
		name := d.CmdArgs[0].Key
		if id, ok := s.ids[name]; ok {
			return id
		}
		var age string
		d.MaybeScanArgs(t, "age", &age)
		at := time.Now().Add(-parseDur(t, d, age))
		id := ulid.MustNew(uint64(at.UnixMilli()), strings.NewReader(fmt.Sprintf("%10s", name)))
		s.ids[name], s.names[id] = id, name
		return id
	}
	switch d.Cmd {
	case "new":
		return s.start(t, d)
	case "put":
		s.put(t, d, id())
	case "partial":
		s.bucket.put(id().String()+"/chunks/000001", "x")
	case "meta":
		s.bucket.put(id().String()+"/"+metaFile, strings.ReplaceAll(d.Input, "$ID", id().String()))
	case "mark":
		content := ""
		if d.MaybeScanArgs(t, "content", &content); content == "" {
			var ago string
			d.ScanArgs(t, "ago", &ago)
			content = fmt.Sprintf(
				`{"id": %q, "version": 1, "deletion_time": %d}`, id(),
				time.Now().Add(-parseDur(t, d, ago)).Unix(),
			)
		}
		s.bucket.put(id().String()+"/"+markFile, content)
	case "unmark":
		if err := s.bucket.Delete(t.Context(), id().String()+"/"+markFile); err != nil {
			return err.Error()
		}
	case "delete":
		file := ""
		if d.MaybeScanArgs(t, "file", &file); file == "" {
			s.bucket.deleteBlock(id().String())
		} else if err := s.bucket.Delete(t.Context(), id().String()+"/"+file); err != nil {
			return err.Error()
		}
	case "fail", "fail-parquet":
		b := s.bucket
		if d.Cmd == "fail-parquet" {
			b = s.parquet
		}
		b.faults.Set(s.faults(t, d)...)
	case "meta.pb":
		s.putParquet(t, d)
	case "mark.pb":
		s.parquet.put(d.CmdArgs[0].Key+"/"+parquetMarkFile, "")
	case "delete.pb":
		if err := s.parquet.Delete(t.Context(), d.CmdArgs[0].Key+"/"+parquetMetaFile); err != nil {
			return err.Error()
		}
	case "sync":
		return s.after(s.catalog.Sync(t.Context()))
	case "refresh":
		return s.after(s.catalog.Refresh(t.Context()))
	case "tombstone":
		s.catalog.Tombstone(id())
		return s.view()
	case "opened":
		s.opened[id()] = true
	case "advance":
		time.Sleep(parseDur(t, d, d.CmdArgs[0].Key)) // the bubble's clock
	case "damage":
		path := filepath.Join(s.dir, savedName)
		if d.CmdArgs[0].Key != "catalog" {
			path = filepath.Join(s.dir, "meta", id().String()+".json")
		}
		flipLastByte(t, path)
	case "view":
		return s.view()
	case "states":
		var out []string
		states := s.catalog.Status().States
		for _, k := range slices.Sorted(maps.Keys(states)) {
			out = append(out, fmt.Sprintf("%s=%d", k, states[k]))
		}
		return strings.Join(out, " ") + "\n"
	case "broken":
		var out strings.Builder
		for _, b := range s.catalog.Status().Broken {
			fmt.Fprintf(
				&out, "%s %s retry in %v: %v\n", s.names[b.ID], b.State, time.Until(b.Next),
				s.rename(b.Err.Error()),
			)
		}
		return out.String()
	case "saved":
		entries, err := os.ReadDir(filepath.Join(s.dir, "meta"))
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, e := range entries {
			out = append(out, s.rename(e.Name()))
		}
		slices.Sort(out)
		return strings.Join(out, " ") + "\n"
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	return ""
}

func (s *script) start(t *testing.T, d *datadriven.TestData) string {
	if s.catalog != nil {
		s.catalog.Close()
	}
	relabel, err := ParseRelabelConfig([]byte(d.Input))
	if err != nil {
		return err.Error()
	}
	if s.opened = nil; d.HasArg("fresh") {
		s.dir = t.TempDir()
	}
	s.bucket.noTimes = d.HasArg("no-times")
	s.parquet.noTimes = d.HasArg("no-times")
	opts := Options{
		Bucket:     s.bucket,
		Dir:        localfs.At(s.dir),
		Relabel:    relabel,
		OnChange:   func(_, _ *View) { s.changes++ },
		FinalError: accessDenied,
	}
	if s.hasPq = d.HasArg("parquet"); s.hasPq {
		opts.Parquet = s.parquet
	}
	if d.HasArg("opened") {
		s.opened = map[ulid.ULID]bool{}
		opts.Opened = func(id ulid.ULID) bool { return s.opened[id] }
	}
	var discovery, minTime, maxTime, consistency, marksDelay string
	d.MaybeScanArgs(t, "discovery", &discovery)
	d.MaybeScanArgs(t, "min-time", &minTime)
	d.MaybeScanArgs(t, "max-time", &maxTime)
	d.MaybeScanArgs(t, "consistency", &consistency)
	d.MaybeScanArgs(t, "marks-delay", &marksDelay)
	opts.Discovery = Discovery(discovery)
	for text, v := range map[string]*TimeOrDuration{minTime: &opts.MinTime,
		maxTime: &opts.MaxTime} {
		if text != "" {
			if err := v.Set(text); err != nil {
				return err.Error()
			}
		}
	}
	opts.ConsistencyDelay = parseDur(t, d, consistency)
	opts.IgnoreDeletionMarksDelay = 24 * time.Hour
	if marksDelay != "" {
		opts.IgnoreDeletionMarksDelay = parseDur(t, d, marksDelay)
	}
	if s.catalog, err = New(opts); err != nil {
		return err.Error()
	}
	s.changes = 0
	return ""
}

func (s *script) put(t *testing.T, d *datadriven.TestData, id ulid.ULID) {
	var j metaJSON
	var mint, maxt int64
	var ext, sources []string
	var uploaded string
	j.ULID, j.Version, j.MinTime, j.MaxTime = id, 1, &mint, &maxt
	for _, a := range d.CmdArgs[1:] {
		switch a.Key {
		case "mint":
			a.Scan(t, 0, &mint)
		case "maxt":
			a.Scan(t, 0, &maxt)
		case "res":
			a.Scan(t, 0, &j.Thanos.Downsample.Resolution)
		case "level":
			a.Scan(t, 0, &j.Compaction.Level)
		case "source":
			j.Thanos.Source = a.Vals[0]
		case "uploaded":
			uploaded = a.Vals[0]
		case "ext":
			ext = a.Vals
		case "sources":
			sources = a.Vals
		case "age":
		default:
			d.Fatalf(t, "unknown argument %q", a.Key)
		}
	}
	for _, e := range ext {
		k, v, _ := strings.Cut(e, ":")
		if j.Thanos.Labels == nil {
			j.Thanos.Labels = map[string]string{}
		}
		j.Thanos.Labels[k] = v
	}
	for _, name := range sources {
		src, ok := s.ids[name]
		if !ok {
			d.Fatalf(t, "unknown source %q", name)
		}
		j.Compaction.Sources = append(j.Compaction.Sources, src)
	}
	if sources == nil {
		j.Compaction.Sources = []ulid.ULID{id}
	}
	if uploaded != "" {
		j.Thanos.UploadTime = time.Now().Add(-parseDur(t, d, uploaded))
	}
	data, err := json.Marshal(j)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	s.bucket.put(id.String()+"/"+metaFile, string(data))
}

// faults returns the rules of a fail command.
func (s *script) faults(t *testing.T, d *datadriven.TestData) (rules []faultstore.Rule) {
	for arg, kind := range map[string]faultstore.Kind{
		"list": faultstore.ListingError, "short-list": faultstore.ShortListing,
	} {
		n := int64(-1)
		if d.MaybeScanArgs(t, arg, &n); n >= 0 {
			rules = append(rules, failLists(kind, n))
		}
	}
	for arg, kind := range map[string]faultstore.Kind{
		"get": faultstore.ServerError, "missing": faultstore.Vanished,
		"denied": faultstore.AccessDenied,
	} {
		patterns := ""
		if d.MaybeScanArgs(t, arg, &patterns); patterns == "" {
			continue
		}
		for name, id := range s.ids {
			patterns = strings.ReplaceAll(patterns, "$"+name, id.String())
		}
		rules = append(rules, failGets(kind, patterns))
	}
	return rules
}

// putParquet stores a meta.pb as the Parquet converter encodes it.
func (s *script) putParquet(t *testing.T, d *datadriven.TestData) {
	var m parquetMeta
	var content string
	var blocks []string
	d.MaybeScanArgs(t, "mint", &m.minTime)
	d.MaybeScanArgs(t, "maxt", &m.maxTime)
	for _, a := range d.CmdArgs {
		if a.Key == "blocks" {
			blocks = a.Vals
		}
	}
	for _, name := range blocks {
		id, ok := s.ids[name]
		if !ok {
			d.Fatalf(t, "unknown block %q", name)
		}
		m.blocks = append(m.blocks, id)
	}
	if !d.MaybeScanArgs(t, "content", &content) {
		content = string(encodeParquetMeta(m))
	}
	s.parquet.put(d.CmdArgs[0].Key+"/"+parquetMetaFile, content)
}

// after prints the result of a sync.
func (s *script) after(err error) string {
	out := ""
	if err != nil {
		out = s.rename(strings.ReplaceAll(err.Error(), "\n", "; ")) + "\n"
	}
	out += s.bucket.requests() + "\n"
	if s.hasPq {
		out += "parquet " + s.parquet.requests() + "\n"
	}
	if s.changes > 0 {
		out += s.view()
	}
	return out
}

func (s *script) view() string {
	s.changes = 0
	v := s.catalog.View()
	var out strings.Builder
	fmt.Fprintf(&out, "ready=%t", v.Ready)
	if v.FromDisk {
		out.WriteString(" from disk")
	}
	out.WriteString("\n")
	for _, set := range v.Sets {
		fmt.Fprintf(&out, "%s\n", set.Labels)
		for _, b := range v.Blocks {
			if slices.Contains(set.ByResolution[resolutionLevel(b.Resolution)], b) {
				fmt.Fprintf(
					&out, "  %s #%d [%d,%d) res=%d\n", s.names[b.ID], b.Number, b.MinTime,
					b.MaxTime, b.Resolution,
				)
			}
		}
	}
	return out.String()
}

// rename replaces ULIDs by the script's names.
func (s *script) rename(text string) string {
	for id, name := range s.names {
		text = strings.ReplaceAll(text, id.String(), name)
	}
	return text
}

func parseDur(t *testing.T, d *datadriven.TestData, s string) time.Duration {
	if s == "" {
		return 0
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return v
}

func flipLastByte(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}
