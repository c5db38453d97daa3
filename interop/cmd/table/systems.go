package main

import "strings"

// module is the path of interop's module, with which the packages in events begin.
const module = "larder/interop"

// tests selects the tests of one package whose names begin with one of the prefixes. Without
// prefixes it selects the whole package.
type tests struct {
	pkg      string // below the module, "" for its root
	prefixes []string
}

func (ts tests) have(pkg, test string) bool {
	if pkg != strings.TrimSuffix(module+"/"+ts.pkg, "/") {
		return false
	}
	for _, p := range ts.prefixes {
		if strings.HasPrefix(test, p) {
			return true
		}
	}
	return len(ts.prefixes) == 0
}

// system is a row of the table.
type system struct {
	name  string
	tests tests
}

// systems returns the rows in order. Every test belongs to exactly one row, except those of
// interop/internal, which test the tests' own tools.
func systems() []system {
	return []system{
		{
			"Store gateway",
			tests{
				"",
				[]string{
					"TestDifferential",
					"TestHarness",
					"TestDefects",
					"TestWhatThanos",
					"TestCompatibility",
					"TestCases",
					"TestMatchers",
				},
			},
		},
		{"Prometheus", tests{"promql", []string{"TestPrometheus"}}},
		{"Sidecar", tests{"writers", []string{"TestSidecar"}}},
		{"Compactor", tests{"writers", []string{"TestCompactor"}}},
		{"Receiver", tests{"writers", []string{"TestReceive"}}},
		{"Ruler", tests{"writers", []string{"TestRule"}}},
		{"Query Gateway", tests{"promql", []string{"TestQuery"}}},
		{"Object storage", tests{"objectstores", nil}},
		{"Security", tests{"multicluster", nil}},
		{"Shards", tests{"shards", nil}},
		{"Metrics and mixin", tests{"", []string{"TestMetric", "TestMixin"}}},
		{"Tracing", tests{"", []string{"TestTrac"}}},
		{"HTTP", tests{"web", nil}},
		{"Flags", tests{"flags", nil}},
		{"Rollback", tests{"writers", []string{"TestRollback"}}},
		{"Migration", tests{"migration", nil}},
		{"Compose file", tests{"compose", nil}},
	}
}

// systemOf returns the name of the system that a test belongs to; "" if there is none.
func systemOf(pkg, test string) string {
	test, _, _ = strings.Cut(test, "/")
	for _, s := range systems() {
		if s.tests.have(pkg, test) {
			return s.name
		}
	}
	return ""
}
