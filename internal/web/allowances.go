package web

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// allowance is a row of the memory table of the overview.
type allowance struct {
	Name       string
	Used, Max  int64
	Elsewhere  bool // outside this machine; its size is not known
	Requests   float64
	HitPercent float64
	Over       []point // hit ratio over time
}

// Filled returns how much of the limit is in use, in percent.
func (a allowance) Filled() float64 {
	if a.Max <= 0 {
		return 0
	}
	return min(float64(a.Used)/float64(a.Max)*100, 100)
}

// Allowance is the limit of one use of memory.
type Allowance struct {
	Name  string
	Bytes int64
}

// nameInLog maps a cache's name in metrics to its name in the log of the start.
func nameInLog(cache string) string {
	switch cache {
	case "index":
		return "index_pages"
	case "chunks":
		return "chunk_pages"
	case "postings":
		return "expanded_postings"
	}
	return cache
}

// allowances reads the bytes in use from the metrics. The limits are those of given, where it has
// one: the limits in metrics are lower, because caches and accounts reserve parts for themselves.
func allowances(g prometheus.Gatherer, given []Allowance) []allowance {
	families, _ := g.Gather() // with an error it still returns what it could gather
	byName := map[string]*allowance{}
	line := func(name string) *allowance {
		name = strings.ReplaceAll(name, "_", " ")
		if byName[name] == nil {
			byName[name] = &allowance{Name: name}
		}
		return byName[name]
	}
	cache := func(m *dto.Metric) *allowance {
		name, tier := nameInLog(label(m, "cache")), label(m, "tier")
		if tier == "" || tier == "memory" {
			return line(name)
		}
		if tier == "disk" {
			return line(name + " on disk")
		}
		l := line(name + " in " + tier)
		l.Elsewhere = true
		return l
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch v := value(m); f.GetName() {
			case "larder_cache_bytes":
				cache(m).Used += int64(v)
			case "larder_cache_max_bytes":
				cache(m).Max += int64(v)
			case "larder_cache_requests_total":
				cache(m).Requests += v
			case "larder_cache_hits_total":
				cache(m).HitPercent += v // becomes a percentage below
			case "larder_request_allowance_bytes":
				switch label(m, "state") {
				case "in_use":
					line("requests").Used = int64(v)
				case "limit":
					line("requests").Max = int64(v)
				}
			case "larder_header_open_bytes":
				line("open index headers").Used = int64(v)
			case "larder_header_block_cache_bytes":
				line("header_blocks").Used = int64(v)
			}
		}
	}
	for _, a := range given {
		line(a.Name).Max = a.Bytes
	}
	var out []allowance
	for _, a := range byName {
		if a.Requests > 0 {
			a.HitPercent *= 100 / a.Requests
		}
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b allowance) int {
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

func value(m *dto.Metric) float64 {
	if c := m.GetCounter(); c != nil {
		return c.GetValue()
	}
	return m.GetGauge().GetValue()
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
