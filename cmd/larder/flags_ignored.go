package main

import (
	"github.com/alecthomas/kingpin/v2"

	"larder/internal/config"
)

// ignoredFlag is a flag of Thanos's that describes how it works inside and means nothing here. Its
// value is checked all the same: a command line that Thanos refuses should not pass by luck.
type ignoredFlag struct {
	name, def string
	hidden    bool
	// check reads the value; nil: the flag is a switch.
	check func(string) error
	// why says what larder does instead.
	why string
}

func checked[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

// ignored lists them; docs/compatibility.md does, too.
func ignored() []ignoredFlag {
	return []ignoredFlag{
		{name: "chunk-pool-size", def: "2GB", check: checked(config.ParseSize),
			why: "there is no chunk pool, see --store.request-bytes"},
		{
			name: "store.enable-index-header-lazy-reader",
			def:  "false",
			why:  "headers are always opened when needed and closed when idle",
		},
		{
			name:  "store.index-header-lazy-download-strategy",
			def:   "eager",
			check: checked(oneOf("eager", "lazy")),
			why:   "headers are built in the background, and at once when a query needs them",
		},
		{
			name:   "store.index-header-posting-offsets-in-mem-sampling",
			def:    "32",
			check:  checked(integer(1)),
			hidden: true,
			why:    "headers have a sparse table of their own",
		},
		{
			name: "store.enable-lazy-expanded-postings",
			def:  "false",
			why:  "every request weighs reading postings against checking series, in bytes",
		},
		{name: "store.posting-group-max-key-series-ratio", def: "100", check: checked(number),
			why: "the lists of a label's values lie together and are weighed by their bytes, not by their number"},
		{
			name:   "debug.series-batch-size",
			def:    "10000",
			check:  checked(integer(1)),
			hidden: true,
			why:    "series are read by bytes, not by number",
		},
		{name: "debug.estimated-max-series-size", def: "65536", check: checked(count), hidden: true,
			why: "series are read in pages, see --index-cache.page-size"},
		{name: "debug.estimated-max-chunk-size", def: "16000", check: checked(count), hidden: true,
			why: "chunks are read in pages, see --chunk-cache.page-size"},
		{
			name:   "debug.advertise-compatibility-label",
			def:    "true",
			hidden: true,
			why:    "only Queriers before 0.8 needed the label, and Thanos has dropped the flag",
		},
	}
}

// deprecated maps Thanos's former names of flags to those that they set.
func deprecated() map[string]string {
	return map[string]string{
		"store.grpc.touched-series-limit": "store.limits.request-series",
		"store.grpc.series-sample-limit":  "store.limits.request-samples",
	}
}

// registerIgnored registers them; given will say which ones the user gave.
func registerIgnored(f flagger, given map[string]*bool) {
	for _, ig := range ignored() {
		help := "Accepted for Thanos's sake, no effect: " + ig.why + "."
		given[ig.name] = new(bool)
		var c *kingpin.FlagClause
		if ig.check == nil {
			c = boolFlag(f, ig.name, help, ig.def, new(bool))
		} else {
			c = flag(f, ig.name, help, ig.def, new(string), func(s string) (string, error) { return s, ig.check(s) })
		}
		if c.IsSetByUser(given[ig.name]); ig.hidden {
			c.Hidden()
		}
	}
}

// deprecatedFlags registers the flags that have a new name.
func (c *storeConfig) deprecatedFlags(f flagger) {
	c.old = map[string]*bool{}
	for name := range deprecated() {
		c.old[name] = new(bool)
	}
	flag(
		f, "store.grpc.touched-series-limit", "Deprecated: use --store.limits.request-series.", "0",
		&c.requests.series, count,
	).
		IsSetByUser(c.old["store.grpc.touched-series-limit"])
	flag(
		f, "store.grpc.series-sample-limit", "Deprecated: use --store.limits.request-samples.", "0",
		&c.requests.samples, count,
	).
		IsSetByUser(c.old["store.grpc.series-sample-limit"])
}
