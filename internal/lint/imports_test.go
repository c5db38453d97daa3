package lint

import (
	"slices"
	"strings"
	"testing"
)

// layers are the packages from the bottom up. A package may import those of lower layers, never one
// of its own layer or above. A folder stands for the folders in it too, unless they have an entry
// of their own.
var layers = [][]string{
	{"internal/redaction"},
	{"internal/clienttls", "internal/panics", "internal/loopback", "internal/yamldoc",
		"internal/localfs", "internal/browser"},
	{"internal/telemetry", "internal/inbound", "internal/faultstore", "store/storepb",
		"internal/reload", "internal/requestlog", "internal/quantile", "internal/flight",
		"internal/sealed", "internal/datadir", "internal/disktest", "internal/memcached",
		"internal/extent", "internal/bucket/slots", "internal/bucket/listing", "internal/budget",
		"internal/explanation", "internal/activity", "internal/pagetrace"},
	{"internal/bytecache", "internal/intake", "internal/bucket/hedge", "internal/bucket/cost",
		"shard"},
	{"internal/pagecache", "internal/tsdbfmt", "internal/bucket/retry", "internal/diskcache",
		"shard/membership"},
	{"store/indexheader", "store/irregular", "store/matcher", "indexcache", "chunkcache"},
	{"store/catalog", "store/postings"},
	{"store/block", "store/admission"}, // block reads blocks as the catalog describes them
	{"store", "store/warm", "store/prefetch", "store/inspection"},
	{"internal/web", "benchmarks", "internal/bucket", "internal/config"},
	{"cmd"},
}

// narrower are packages that may import less than their layer allows: only these of larder's own.
var narrower = map[string][]string{
	"internal/panics":     {},
	"store/storepb":       {},
	"internal/redaction":  {},
	"internal/telemetry":  {"internal/clienttls", "internal/redaction", "internal/yamldoc"},
	"internal/clienttls":  {},
	"internal/inbound":    {"internal/panics"},
	"internal/intake":     {"internal/inbound", "store/storepb"}, // storepb in tests: its codec
	"internal/reload":     {"internal/panics"},
	"internal/requestlog": {"internal/yamldoc"},
	"internal/budget":     {"internal/yamldoc"},
	"internal/pagetrace":  {"internal/panics", "internal/localfs"},
	"internal/yamldoc":    {"internal/redaction"},
	"internal/tsdbfmt":    {"internal/telemetry"},
	"internal/memcached": {
		"internal/panics", "internal/redaction", "internal/telemetry", "internal/loopback",
	},
	"internal/bytecache": {"internal/telemetry", "internal/memcached"},
	"internal/diskcache": {"internal/panics", "internal/bytecache", "internal/bucket/cost",
		"internal/localfs", "internal/sealed"},
	"internal/pagecache": {"internal/panics", "internal/telemetry", "internal/bytecache",
		"internal/quantile", "internal/bucket/cost", "internal/bucket/slots", "internal/extent"},
	"internal/bucket/cost": {"internal/quantile"},
	"internal/quantile":    {},
	"internal/flight":      {"internal/panics"},
	"internal/faultstore":  {},
	"internal/extent":      {},
	"internal/localfs":     {},
	"internal/sealed":      {"internal/localfs"},
	"shard":                {"internal/localfs", "internal/sealed"},
	"shard/membership":     {"shard", "internal/localfs", "internal/panics", "internal/yamldoc"},
	"internal/datadir":     {"internal/localfs"},
	"internal/disktest":    {},
	"internal/browser":     {},
	"internal/loopback":    {},
	"internal/explanation": {},
	"internal/activity":    {},
	"internal/web": {"internal/panics", "internal/telemetry", "internal/explanation",
		"internal/activity"},
	"internal/config": {"internal/clienttls", "internal/memcached", "internal/yamldoc",
		"internal/diskcache"},
	"store/admission": {"internal/inbound"},
	"store/irregular": {"internal/localfs", "internal/panics", "internal/sealed"},
	"store/matcher":   {"internal/intake", "store/storepb"},
	"store/warm": {"internal/panics", "internal/telemetry", "internal/pagecache",
		"store/storepb", "store/catalog", "store/block", "store/postings", "store/indexheader",
		"internal/localfs", "internal/sealed"},
	"store/prefetch": {"internal/panics", "internal/bytecache", "internal/pagecache",
		"internal/bucket/slots", "internal/tsdbfmt", "internal/localfs", "internal/sealed",
		"store/catalog", "store/indexheader",
		// in tests: a whole gateway
		"indexcache", "chunkcache", "internal/diskcache", "internal/extent", "store/storepb"},

	"store/inspection": {"internal/bucket/cost", "internal/bucket/retry", "internal/localfs",
		"internal/panics", "internal/tsdbfmt", "shard", "store/block", "store/catalog",
		"store/indexheader"},

	"internal/bucket": {
		"internal/bucket/listing", "internal/bucket/slots", "internal/bucket/hedge",
		"internal/bucket/retry", "internal/extent", "internal/redaction", "internal/telemetry",
		"internal/yamldoc",
	},
	"internal/bucket/listing": {},
	"internal/bucket/slots":   {},
	"internal/bucket/hedge":   {"internal/panics", "internal/telemetry", "internal/quantile"},
	"internal/bucket/retry":   {"internal/panics", "internal/telemetry", "internal/bucket/hedge"},
}

// forTests are packages that every test may import. Other files may import them only if their layer
// allows it.
var forTests = []string{
	"benchmarks",
	"internal/faultstore",
	"internal/bytecache",
	"internal/telemetry",
	"internal/memcached",
	"internal/disktest",
	"internal/loopback",
	"internal/browser",
	"internal/clienttls", // tlstest
}

const module = "larder/"

// place returns the entry of layers for a package, and its layer; -1 if it has none.
func place(pkg string) (entry string, layer int) {
	layer = -1
	for i, names := range layers {
		for _, n := range names {
			if (pkg == n || strings.HasPrefix(pkg, n+"/")) && len(n) > len(entry) {
				entry, layer = n, i
			}
		}
	}
	return entry, layer
}

// mayImport reports whether a file of package from may import package to. Both are paths from the
// module's root.
func mayImport(from, to string, test bool) bool {
	fromEntry, fromLayer := place(from)
	toEntry, toLayer := place(to)
	switch {
	case fromEntry == toEntry:
		return true
	case test && slices.Contains(forTests, toEntry):
		return true
	case !test && slices.Contains([]string{"internal/web", "benchmarks"}, toEntry):
		return fromEntry == "cmd"
	case !test && toEntry == "internal/faultstore":
		return fromEntry == "benchmarks"
	}
	if only, ok := narrower[fromEntry]; ok {
		return slices.Contains(only, toEntry)
	}
	return toLayer < fromLayer
}

func TestImportsPointDown(t *testing.T) {
	for _, f := range tree(t) {
		if apart(f.name) || f.pkg == "internal/lint" {
			continue
		}
		if _, layer := place(f.pkg); layer < 0 {
			t.Errorf("%s: package %s has no layer: add it to internal/lint/imports_test.go",
				f.name, f.pkg)
			continue
		}
		for _, p := range f.imports() {
			to, own := strings.CutPrefix(p, module)
			if own && !mayImport(f.pkg, to, f.test) {
				t.Errorf("%s imports %s: imports point down only", f.name, p)
			}
		}
	}
}

// TestImportRuleBites checks that the rule refuses imports: a table that allowed everything would
// pass the test above.
func TestImportRuleBites(t *testing.T) {
	f := func(from, to string, test, want bool) {
		t.Helper()
		if got := mayImport(from, to, test); got != want {
			t.Errorf("%s imports %s (test: %v): got %v, want %v", from, to, test, got, want)
		}
	}
	f("cmd/larder", "store", false, true)
	f("store", "store/block", false, true)
	f("store", "cmd/larder", false, false)
	f("store/block", "store", false, false)
	f("store", "store/admission", false, true)
	f("store/admission", "store/block", false, false)
	f("store/admission", "store/storepb", false, false)
	f("store/block", "store/admission", false, false)
	f("store", "store/matcher", false, true)
	f("store/matcher", "store/storepb", false, true)
	f("store/matcher", "store", false, false)
	f("store/matcher", "store/catalog", false, false)
	f("store/matcher", "store/admission", false, false)
	f("store/admission", "store/matcher", false, false)
	f("store/catalog", "store/block", false, false)
	f("store/block", "store/indexheader", false, true)
	f("store/block", "store/postings", false, true)
	f("store/postings", "store/block", false, false)
	f("store/postings", "store/catalog", false, false)
	f("store/indexheader", "store/block", false, false)
	f("indexcache", "internal/pagecache", false, true)
	f("indexcache", "chunkcache", false, false)
	f("internal/pagecache", "store/storepb", false, false)
	f("internal/pagecache", "internal/bytecache", false, true)
	f("internal/bytecache", "internal/pagecache", false, false)
	f("internal/telemetry", "store/storepb", false, false)
	f("store", "internal/web", false, false)
	f("store", "benchmarks", false, false)
	f("store", "benchmarks/dataset", true, true)
	f("internal/bytecache/bytecachetest", "internal/bytecache", false, true)
	f("internal/web", "store", false, false)
	f("store", "internal/faultstore", false, false)
	f("store", "internal/faultstore/s3server", true, true)
	f("benchmarks/chaos", "internal/faultstore/s3server", false, true)
	f("cmd/larder", "internal/web", false, true)
	f("cmd/larder", "internal/bucket", false, true)
	f("store", "internal/bucket", true, false)
	f("internal/bucket", "store/catalog", true, false)
	f("internal/bucket/retry", "internal/bucket", false, false)
	f("cmd/larder", "internal/config", false, true)
	f("store", "internal/config", true, false)
	f("internal/config", "store/admission", false, false)
	f("internal/config", "internal/web", false, false)
}

// banned are imports of other modules that are allowed in one place, or nowhere. A folder in except
// stands for the folders in it too.
var banned = []struct {
	path   string
	except []string
	tests  bool // tests may import it
	why    string
}{
	{path: "github.com/thanos-io/thanos", except: []string{"interop"},
		why: "larder does not link Thanos; interop/ compares the two"},
	{path: "github.com/thanos-io/objstore/client", except: []string{"internal/bucket", "interop"},
		why: "it links every provider; packages declare the two or three methods that they need"},
	{path: "github.com/prometheus/prometheus/tsdb/index", except: []string{"internal/tsdbfmt",
		"benchmarks", "interop"}, tests: true,
		why: "only internal/tsdbfmt touches the TSDB's encodings"},
	{path: "github.com/prometheus/prometheus/tsdb/encoding", except: []string{"internal/tsdbfmt",
		"benchmarks", "interop"}, tests: true,
		why: "only internal/tsdbfmt touches the TSDB's encodings"},
	{path: "github.com/prometheus/prometheus/tsdb/chunkenc", except: []string{"internal/tsdbfmt",
		"benchmarks", "interop", "cmd"}, tests: true,
		why: "only internal/tsdbfmt touches the TSDB's encodings"},
	{path: "github.com/prometheus/prometheus/tsdb", except: []string{"internal/tsdbfmt",
		"benchmarks", "interop", "cmd"}, tests: true,
		why: "only internal/tsdbfmt touches the TSDB's encodings"},
	{path: "github.com/dgraph-io/ristretto", except: []string{"internal/bytecache"},
		why: "one package works around its faults"},
	{path: "github.com/maypok86/otter", except: []string{"benchmarks/eviction"},
		why: "it is only compared with ristretto"},
	{path: "github.com/bradfitz/gomemcache", except: []string{"internal/memcached"},
		why: "one package works around its faults"},
	{path: "github.com/go-kit/log", except: []string{"internal/telemetry", "interop"}, tests: true,
		why: "logs use log/slog; the object store clients get an adapter"},
	{path: "github.com/alecthomas/kingpin", except: []string{"cmd", "benchmarks", "interop"},
		why: "flags belong to commands; packages take values"},
	{path: "google.golang.org/grpc/experimental", except: []string{"cmd"},
		why: "it changes the whole process"},
	{path: "go.opentelemetry.io/otel/sdk", except: []string{"internal/telemetry"}, tests: true,
		why: "packages use the trace API; the recorder is set up once"},
	{path: "github.com/pkg/errors", why: "errors are wrapped with %w"},
	{path: "gopkg.in/yaml.v2", why: "go.yaml.in/yaml has the maintained versions"},
	{path: "github.com/gogo/protobuf", except: []string{"interop"},
		why: "messages are generated by protoc-gen-go"},
	{path: "golang.org/x/exp",
		why: "it breaks without notice; the standard library is enough"},
	{path: "io/ioutil", why: "deprecated; use os and io"},
	{path: "log", why: "logs use log/slog, passed in"},
	{path: "expvar", why: "metrics use client_golang, with a registerer passed in"},
}

func TestBannedImports(t *testing.T) {
	for _, f := range tree(t) {
		for _, p := range f.imports() {
			for _, b := range banned {
				if p != b.path &&
					!(strings.HasPrefix(p, b.path+"/") && strings.Contains(b.path, ".")) {
					continue
				}
				allowed := b.tests && f.test || slices.ContainsFunc(b.except, func(e string) bool {
					return f.pkg == e || strings.HasPrefix(f.pkg, e+"/")
				})
				if !allowed {
					t.Errorf("%s imports %s: %s", f.name, p, b.why)
				}
			}
		}
	}
}

// apart reports whether a file belongs to another module of the repository.
func apart(name string) bool {
	return strings.HasPrefix(name, "interop/") || strings.HasPrefix(name, "deploy/")
}

// TestModulesStandApart: interop/ and deploy/ do not import larder's module. Go would then upgrade
// the Prometheus that Thanos is built with, and larder what it is packed with.
func TestModulesStandApart(t *testing.T) {
	for _, f := range tree(t) {
		if !apart(f.name) {
			continue
		}
		own, _, _ := strings.Cut(f.name, "/")
		for _, p := range f.imports() {
			if strings.HasPrefix(p, module) && !strings.HasPrefix(p, module+own) {
				t.Errorf("%s imports %s: it must run the binary and not link larder", f.name, p)
			}
		}
	}
}
