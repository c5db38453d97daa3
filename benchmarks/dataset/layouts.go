package dataset

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Layouts returns the layouts by name. size is the number of pods or blocks of those that have a
// size; 0 = full size.
func Layouts(size int) map[string]func(seed uint64) Layout {
	sized := func(
		layout func(seed uint64, size int) Layout, full int,
	) func(uint64) Layout {
		if size > 0 {
			full = size
		}
		return func(seed uint64) Layout { return layout(seed, full) }
	}
	return map[string]func(uint64) Layout{
		"demo": func(seed uint64) Layout {
			return Demo(seed, time.UnixMilli(Epoch))
		},
		"bench50k":      Bench50k,
		"bench500k":     Bench500k,
		"manyvalues1m":  ManyValues1M,
		"manyblocks500": ManyBlocks500,
		"medium":        sized(Medium, 1020),
		"large":         sized(Large, 10_204),
		"many":          sized(Many, 500),
		"month":         sized(Month, 360),
		"crowded":       sized(Crowded, 10_000),
		"downsampled":   sized(Downsampled, 100),
		"histograms":    sized(Histograms, 2000),
		"churn":         sized(Churn, 50),
	}
}

// Churn is twelve blocks of two hours whose pods are all replaced every half hour, as by a service
// that is deployed all day. The given number of pods with 20 series each runs at any time.
func Churn(seed uint64, pods int) Layout {
	const lifetime, blocks = 30 * minute, 12
	var c collector
	c.seed = seed
	n := 0
	for from := Epoch; from < Epoch+blocks*2*hour; from += lifetime {
		c.from, c.to = from, from+lifetime
		for range pods {
			c.target = uint64(n)
			c.common = []string{
				"instance", podAddress(n) + ":8080", "job", "shop-api", "namespace", "shop",
				"pod", podName("shop-api", seed, n),
			}
			n++
			for h := range 10 {
				handler := fmt.Sprintf("/api/v1/%d", h)
				c.add(Counter, 0, "", WholeMetricName, "handler", handler)
				c.add(Bytes, 0, "", "http_response_size_bytes", "handler", handler)
			}
		}
	}
	src := newList(c.series)
	bs := make([]Block, blocks)
	for i := range bs {
		from := Epoch + int64(i)*2*hour
		bs[i] = Block{
			MinTime: from, MaxTime: from + 2*hour, Series: src,
			Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
		}
	}
	return Layout{Name: "churn", Blocks: withIDs(seed, bs)}
}
