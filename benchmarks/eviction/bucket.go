package main

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
)

// dataEnd is the end of the demo's data, which the demo rounds to two hours.
const dataEnd = dataset.Epoch + 24*hour

// region returns the external label value of a region's copy of a cluster or tenant. The first
// region is the demo itself, the subject of the tour's questions.
func region(value string, i int) string {
	if i == 0 {
		return value
	}
	return fmt.Sprintf("%s-%d", value, i)
}

// demoRegions is several copies of the demo's bucket, with other names of clusters and tenants and
// other values.
func demoRegions(seed uint64, n int) dataset.Layout {
	all := dataset.Layout{Name: "regions"}
	for i := range n {
		l := dataset.Demo(seed+1000*uint64(i), time.UnixMilli(dataEnd))
		for _, b := range l.Blocks {
			lb := labels.NewBuilder(b.Labels)
			for _, name := range []string{"cluster", "tenant_id"} {
				if v := b.Labels.Get(name); v != "" {
					lb.Set(name, region(v, i))
				}
			}
			b.Labels = lb.Labels()
			all.Blocks = append(all.Blocks, b)
		}
	}
	return all
}
