package web

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// tiers says where the pages of one kind came from: a row of the overview.
type tiers struct {
	Kind   string
	Needed float64
	// Percentages of Needed. Shared pages came with the read of another request.
	Memory, Disk, Memcached, Shared, Bucket float64
	HasDisk, HasMemcached                   bool
}

// tiersOf reads where pages came from, by kind of file. It leaves out kinds of which no page was
// needed.
func tiersOf(g prometheus.Gatherer) []tiers {
	families, _ := g.Gather() // with an error it still returns what it could gather
	byKind := map[string]*tiers{}
	row := func(m *dto.Metric) *tiers {
		kind := label(m, "kind")
		if byKind[kind] == nil {
			byKind[kind] = &tiers{Kind: kind}
		}
		return byKind[kind]
	}
	configured := map[string]bool{} // tiers
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch v := value(m); f.GetName() {
			case "larder_cache_requests_total":
				configured[label(m, "tier")] = true
			case "larder_pages_touched_total":
				row(m).Needed += v
			case "larder_pages_coalesced_total":
				row(m).Shared += v
			case "larder_pages_hits_total":
				switch label(m, "tier") {
				case "memory":
					row(m).Memory += v
				case "disk":
					row(m).Disk += v
				case "memcached":
					row(m).Memcached += v
				}
			}
		}
	}
	var out []tiers
	for _, t := range byKind {
		if t.Needed == 0 {
			continue
		}
		t.Bucket = max(t.Needed-t.Memory-t.Disk-t.Memcached-t.Shared, 0)
		for _, p := range []*float64{&t.Memory, &t.Disk, &t.Memcached, &t.Shared, &t.Bucket} {
			*p *= 100 / t.Needed
		}
		t.HasDisk, t.HasMemcached = configured["disk"], configured["memcached"]
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b tiers) int { return strings.Compare(a.Kind, b.Kind) })
	return out
}
