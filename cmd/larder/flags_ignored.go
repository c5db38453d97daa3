package main

import (
	"github.com/alecthomas/kingpin/v2"

	"larder/internal/config"
)

// ignoredFlag is a flag that tunes how Thanos works inside and has no meaning in larder. Its value
// is checked nevertheless, because a command line that Thanos rejects must not start larder.
type ignoredFlag struct {
	name, def string
	hidden    bool
	// check validates the value. It is nil for a switch.
	check func(string) error
	// why says what larder does instead. The help and the log show it.
	why string
}

func checked[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

// ignored lists the flags without effect. docs/compatibility.md lists them too.
func ignored() []ignoredFlag {
	size, atLeastOne := checked(config.ParseSize), checked(integer(1))
	return []ignoredFlag{
		{name: "chunk-pool-size", def: "2GB", check: size,
			why: "larder has no chunk pool, see --store.request-bytes"},
		{name: "store.enable-index-header-lazy-reader", def: "false",
			why: "index headers are always opened when needed and closed when idle"},
		{name: "store.index-header-lazy-download-strategy", def: "eager",
			check: checked(oneOf("eager", "lazy")),
			why: "index headers are built in the background, " +
				"and at once when a query needs them"},
		{name: "store.index-header-posting-offsets-in-mem-sampling", def: "32", check: atLeastOne,
			hidden: true, why: "larder's index headers have a sparse table of their own"},
		{name: "store.enable-lazy-expanded-postings", def: "false",
			why: "every request compares what reading postings costs with what checking " +
				"series costs"},
		{name: "store.posting-group-max-key-series-ratio", def: "100", check: checked(number),
			why: "the postings of a label's values are stored together and are compared " +
				"by their bytes, not by their number"},
		{name: "debug.series-batch-size", def: "10000", check: atLeastOne, hidden: true,
			why: "series are read by bytes, not by number"},
		{name: "debug.estimated-max-series-size", def: "65536", check: checked(count), hidden: true,
			why: "series are read in pages, see --index-cache.page-size"},
		{name: "debug.estimated-max-chunk-size", def: "16000", check: checked(count), hidden: true,
			why: "chunks are read in pages, see --chunk-cache.page-size"},
		{name: "debug.advertise-compatibility-label", def: "true", hidden: true,
			why: "only Queriers before 0.8 needed the label, and Thanos has removed the flag"},
	}
}

// deprecated maps former names of Thanos's flags to their present names.
func deprecated() map[string]string {
	return map[string]string{
		"store.grpc.touched-series-limit": "store.limits.request-series",
		"store.grpc.series-sample-limit":  "store.limits.request-samples",
	}
}

// registerIgnored registers the flags without effect. Parsing sets given for those that the user
// gave.
func registerIgnored(f flagger, given map[string]*bool) {
	for _, ig := range ignored() {
		help := "Accepted for compatibility with Thanos; has no effect: " + ig.why + "."
		given[ig.name] = new(bool)
		var c *kingpin.FlagClause
		if ig.check == nil {
			c = boolFlag(f, ig.name, ig.def, new(bool), help)
		} else {
			parse := func(s string) (string, error) { return s, ig.check(s) }
			c = flag(f, ig.name, ig.def, new(string), parse, help)
		}
		if c.IsSetByUser(given[ig.name]); ig.hidden {
			c.Hidden()
		}
	}
}

// deprecatedFlags registers the former names of flags.
func (c *storeConfig) deprecatedFlags(f flagger) {
	c.old = map[string]*bool{}
	for name := range deprecated() {
		c.old[name] = new(bool)
	}
	flag(f, "store.grpc.touched-series-limit", "0", &c.requests.series, count,
		"Deprecated: use --store.limits.request-series.").
		IsSetByUser(c.old["store.grpc.touched-series-limit"])
	flag(f, "store.grpc.series-sample-limit", "0", &c.requests.samples, count,
		"Deprecated: use --store.limits.request-samples.").
		IsSetByUser(c.old["store.grpc.series-sample-limit"])
}
