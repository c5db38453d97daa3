package main

import "strings"

// module is the path of interop's module, which the packages of events begin with.
const module = "larder/interop"

// tests are those of one package whose names begin with one of the prefixes; without prefixes, all
// of it.
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

// systems are the rows in their order. Tests of interop/internal, which are about the tests' own
// tools, are in none; every other test is in one.
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
		{"Metrics and mixin", tests{"", []string{"TestMetric", "TestMixin"}}},
		{"Tracing", tests{"", []string{"TestTrac"}}},
		{"HTTP", tests{"web", nil}},
		{"Flags", tests{"flags", nil}},
		{"Rollback", tests{"writers", []string{"TestRollback"}}},
	}
}

// systemOf returns the name of the system that a test is about, "" for none.
func systemOf(pkg, test string) string {
	test, _, _ = strings.Cut(test, "/")
	for _, s := range systems() {
		if s.tests.have(pkg, test) {
			return s.name
		}
	}
	return ""
}
