package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"go.yaml.in/yaml/v2"

	"larder/benchmarks/bench/report"
	"larder/benchmarks/tune"
	"larder/internal/config"
)

func (b *benchCommand) tuneFlags(f *kingpin.CmdClause) {
	boolFlag(f, "tune", "false", &b.tune.on,
		"Search for flags that keep the budgets at the lowest cost, instead of measuring once. "+
			"Scenarios without a budget may take a tenth more time than with the present flags. "+
			"Flags after -- stay as they are.")
	note := func(name string, c *kingpin.FlagClause) {
		b.given[name] = new(bool)
		c.IsSetByUser(b.given[name])
	}
	note("tune-time", flag(f, "tune-time", "20m", &b.tune.time, positive(goDuration),
		"Time limit of --tune. What it did not suffice for is named in the result."))
	note("tune-memory", flag(
		f,
		"tune-memory",
		"0",
		&b.tune.memory,
		config.ParseSize,
		"Memory ceiling of --tune: the gateway runs as in a container of this size, and the "+
			"caches are divided within it. 0 = the limit of this process, if it has one.",
	))
	note("tune-disk", flag(f, "tune-disk", "0", &b.tune.disk, config.ParseSize,
		"Disk ceiling of --tune: the largest --disk-cache-size to try. 0 = no disk cache."))
	note("tune-usd", flag(
		f,
		"tune-usd",
		"0",
		&b.tune.usd,
		notNegative,
		"Cost ceiling of --tune in US dollars for 1,000 requests. bench exits with 1 if the "+
			"result costs more. 0 = no ceiling.",
	))
}

func (b *benchCommand) checkTune() error {
	if !b.tune.on {
		for name, given := range b.given {
			if strings.HasPrefix(name, "tune-") && *given {
				return fmt.Errorf("--%s needs --tune", name)
			}
		}
		return nil
	}
	if b.endpoint != "" {
		return errors.New("--tune has no effect with --endpoint: that gateway runs already")
	}
	if b.replay != "" {
		return errors.New("--tune and --replay are mutually exclusive: a search draws its requests")
	}
	return nil
}

// knob is a knob of the search, and how to set it.
type knob struct {
	tune.Knob
	// set sets a constant. nil for a flag.
	set func(c *constants, value int)
}

// tuningKnobs returns the knobs, without those whose flags the user gave.
func (b *benchCommand) tuningKnobs(g *benchGateway) ([]knob, error) {
	conf, err := parseStore(g.args...)
	if err != nil {
		return nil, err
	}
	if err := conf.load(time.Now()); err != nil {
		return nil, err
	}
	limit := b.tune.memory
	if limit == 0 {
		if limit, err = config.MemoryLimit(false, 0); err != nil {
			return nil, err
		}
	}
	m := &conf.caches.Memory
	if _, err := m.Fit(limit); err != nil {
		return nil, err
	}
	out := []knob{
		flagKnob("--index-cache.page-size", 2, "4KB", "8KB", "16KB", "32KB", "64KB"),
		flagKnob("--chunk-cache.page-size", 1, "4KB", "8KB", "16KB", "32KB", "64KB"),
		flagKnob(
			"--store.read-cost.request",
			3,
			"0s",
			"250us",
			"500us",
			"1ms",
			"2ms",
			"4ms",
			"8ms",
		),
		flagKnob("--store.grpc.series-max-concurrency", 2, "5", "10", "20", "40"),
		cacheSplit(m),
		seriesShare(m),
	}
	if b.tune.disk > 0 {
		out = append(out, diskSizes(b.tune.disk))
	}
	hedging, err := hedgingKnob(&conf.bucket.yaml)
	if err != nil {
		return nil, err
	}
	out = append(out, hedging)
	out = slices.DeleteFunc(out, func(k knob) bool { return len(k.Values) < 2 || b.fixes(&k) })
	out = append(out, constantKnobs()...)
	if b.tune.disk > 0 {
		out = append(out, deadlineKnob("deadline of the disk cache",
			func(c *constants, d time.Duration) { c.disk = d }))
	}
	if c := &conf.caches; c.IndexRemote != nil || c.ChunkRemote != nil {
		out = append(out, deadlineKnob("deadline of memcached",
			func(c *constants, d time.Duration) { c.memcached = d }))
	}
	return out, nil
}

// fixes reports whether the user gave a flag that the knob would set.
func (b *benchCommand) fixes(k *knob) bool {
	for _, v := range k.Values {
		for _, f := range v.Flags {
			name, _, _ := strings.Cut(f, "=")
			if slices.ContainsFunc(b.storeArgs, func(a string) bool {
				given, _, _ := strings.Cut(a, "=")
				return given == name
			}) {
				return true
			}
		}
	}
	return false
}

// flagKnob is a knob with one flag. start is the index of its default.
func flagKnob(name string, start int, values ...string) knob {
	k := knob{Knob: tune.Knob{Name: name, Start: start}}
	for i, v := range values {
		value := tune.Value{Text: v}
		if i != start {
			value.Flags = []string{name + "=" + v}
		}
		k.Values = append(k.Values, value)
	}
	return k
}

// insert adds values to the one of the start, in ascending order of the shares that they stand for.
func insert(k *knob, start float64, shares []float64, value func(share float64) tune.Value) {
	for _, share := range shares {
		switch {
		case math.Abs(share-start) < 0.05: // too close to the start
		case share < start:
			k.Values = slices.Insert(k.Values, k.Start, value(share))
			k.Start++
		default:
			k.Values = append(k.Values, value(share))
		}
	}
}

// cacheSplit divides the bytes of the index cache and of the chunk cache in other ways.
func cacheSplit(m *config.Memory) knob {
	total := m.Index.Bytes + m.Chunks.Bytes
	share := float64(m.Index.Bytes) / float64(max(total, 1))
	text := func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
	k := knob{Knob: tune.Knob{
		Name: "index cache : both caches", Values: []tune.Value{{Text: text(share)}},
	}}
	insert(&k, share, []float64{0.1, 0.25, 0.5, 0.75}, func(share float64) tune.Value {
		index := int64(share * float64(total))
		return tune.Value{Text: text(share), Flags: []string{
			"--index-cache-size=" + size(index), "--chunk-cache-size=" + size(total-index),
		}}
	})
	return k
}

// seriesShare gives series sets another part of the index cache.
func seriesShare(m *config.Memory) knob {
	const share = 0.3
	k := knob{Knob: tune.Knob{
		Name:   "--index-cache.series-size",
		Values: []tune.Value{{Text: size(int64(share * float64(m.Index.Bytes)))}},
	}}
	insert(&k, share, []float64{0.1, 0.5, 0.7}, func(share float64) tune.Value {
		bytes := size(int64(share * float64(m.Index.Bytes)))
		return tune.Value{Text: bytes, Flags: []string{"--index-cache.series-size=" + bytes}}
	})
	return k
}

// diskSizes are sizes of the disk cache.
func diskSizes(most int64) knob {
	return flagKnob("--disk-cache-size", 0, "0", size(most/4), size(most))
}

// size formats bytes as flags have them.
func size(bytes int64) string {
	if mib := bytes >> 20; mib > 0 {
		return strconv.FormatInt(mib, 10) + "MB"
	}
	return strconv.FormatInt(bytes>>10, 10) + "KB"
}

// hedgingKnob turns hedged reads on, which the document of the bucket does.
func hedgingKnob(document *content) (knob, error) {
	k := knob{Knob: tune.Knob{Name: "hedging_config in --objstore.config"}}
	text, err := document.document()
	if err != nil {
		return k, err
	}
	var doc yaml.MapSlice
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return k, document.wrap(err)
	}
	const key = "hedging_config"
	k.Values = []tune.Value{{Text: "as it is"}}
	if slices.ContainsFunc(doc, func(i yaml.MapItem) bool { return i.Key == key }) {
		return k, nil // the user has decided
	}
	k.Values[0].Text = "off"
	for _, quantile := range []float64{0.95, 0.99} {
		with := append(slices.Clone(doc), yaml.MapItem{Key: key, Value: map[string]any{
			"enabled": true, "quantile": quantile,
		}})
		out, err := yaml.Marshal(with)
		if err != nil {
			return k, err
		}
		k.Values = append(k.Values, tune.Value{
			Text:  fmt.Sprintf("quantile %g", quantile),
			Flags: []string{"--objstore.config=" + string(out)},
			Show: fmt.Sprintf("in --objstore.config: hedging_config: {enabled: true, quantile: %g}",
				quantile),
		})
	}
	return k, nil
}

// constantKnobs are constants of the gateway.
func constantKnobs() []knob {
	constant := func(name, start string, set func(*constants, int64), values ...int64) knob {
		k := knob{Knob: tune.Knob{
			Name: name, Constant: true, Values: []tune.Value{{Text: start}},
		}}
		for _, v := range values {
			text := strconv.FormatInt(v, 10)
			if v >= 1<<10 {
				text = units.Base2Bytes(v).String()
			}
			k.Values = append(k.Values, tune.Value{Text: text})
		}
		k.set = func(c *constants, i int) {
			if i > 0 {
				set(c, values[i-1])
			}
		}
		return k
	}
	return []knob{
		constant("largest gap of a read", "512KiB",
			func(c *constants, v int64) { c.maxGap = v }, 128<<10, 2<<20),
		constant("gaps of a plan", "10MiB",
			func(c *constants, v int64) { c.maxAlong = v }, 2<<20, 40<<20),
		constant("windows of a request", "8",
			func(c *constants, v int64) { c.windows = int(v) }, 3, 16),
		constant("concurrent reads at the start", "96",
			func(c *constants, v int64) { c.slots = int(v) }, 24, 256),
	}
}

// deadlineKnob replaces a deadline that follows the first byte of the bucket by a fixed one.
func deadlineKnob(name string, set func(*constants, time.Duration)) knob {
	fixed := []time.Duration{
		10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, time.Second,
	}
	k := knob{Knob: tune.Knob{
		Name: name, Constant: true, Values: []tune.Value{{Text: "the bucket's first byte"}},
	}}
	for _, d := range fixed {
		k.Values = append(k.Values, tune.Value{Text: d.String()})
	}
	k.set = func(c *constants, i int) {
		if i > 0 {
			set(c, fixed[i-1])
		}
	}
	return k
}

// report describes what a search found out about a knob.
func (k *knob) report(i int, r *tune.Result) report.Knob {
	out := report.Knob{
		Name: k.Name, Constant: k.Constant, Start: k.Values[k.Start].Text,
		Best: k.Values[k.Start].Text,
	}
	better := false
	for _, t := range r.Trials {
		if t.Knob != i {
			continue
		}
		one := trial(&t.Comparison, t.Why)
		one.Value, one.Than, one.With = k.Values[t.Value].Text, k.Values[t.Than].Text, t.With
		one.Better = t.Better
		better = better || t.Promising
		out.Trials = append(out.Trials, one)
	}
	found := r.Setting
	if found == nil {
		found = r.Found
	}
	out.Best = k.Values[found[i]].Text
	switch {
	case math.IsNaN(r.Effect[i]):
		out.Outcome = "not measured: no time left"
	case slices.Contains(r.Unfinished, k.Name):
		out.Outcome = "not decided: no time left"
	case k.Constant && better:
		out.Outcome = "another value was better: it has no flag"
	case out.Best != out.Start:
		out.Outcome = "changed"
	case r.Effect[i] < tune.DefaultMinGain/2:
		out.Outcome = "no effect on this load"
	default:
		out.Outcome = "stays"
	}
	return out
}
