package dataset

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

const (
	// Epoch is the start of the benchmarks' blocks, in milliseconds: 2026-01-05 00:00 UTC.
	Epoch = int64(1767571200) * second

	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
)

// Metrics of the benchmark layouts.
const (
	WholeMetricName = "http_requests_total"
	ManyValuesName  = "session_requests_total"
	ManyValuesLabel = "session"
)

// Bench50k is one block of 50,000 series of one metric, two hours at 30 s: 100,000 chunks of 120
// samples.
func Bench50k(seed uint64) Layout {
	return WholeMetric("bench50k", seed, 50_000, 30*second)
}

// Bench500k is one block of 500,000 series of one metric, with 12 samples each.
func Bench500k(seed uint64) Layout {
	return WholeMetric("bench500k", seed, 500_000, 10*minute)
}

// WholeMetric is one block of two hours with the given number of series, rounded up to a multiple
// of 200. All belong to the metric WholeMetricName and have 10 labels besides the two external
// ones.
func WholeMetric(name string, seed uint64, series int, interval int64) Layout {
	var (
		codes    = []string{"200", "302", "404", "500", "503"}
		handlers = []string{
			"/api/v1/accounts", "/api/v1/baskets", "/api/v1/baskets/{id}", "/api/v1/catalog",
			"/api/v1/orders",
			"/api/v1/orders/{id}", "/api/v1/payments", "/api/v1/search", "/healthz", "/metrics",
		}
		methods = []string{"DELETE", "GET", "POST", "PUT"}
		perPod  = len(codes) * len(handlers) * len(methods)
		pods    = (series + perPod - 1) / perPod
		at      = make([]string, pods)
	)
	for i := range at {
		at[i] = podAddress(i) + ":8080"
	}
	slices.Sort(at)
	const instance = 4 // its dimension
	src := &product{
		kind: Counter, seed: mix(seed), target: instance,
		dims: []dim{
			fixed(labels.MetricName, WholeMetricName),
			oneOf("code", codes...),
			fixed("container", "api"),
			oneOf("handler", handlers...),
			oneOf("instance", at...),
			fixed("job", "shop-api"),
			oneOf("method", methods...),
			follows("namespace", instance,
				func(i int) string { return fmt.Sprintf("shop-%d", i%5) }),
			follows("pod", instance, func(i int) string { return podName("shop-api", seed, i) }),
			fixed("service", "shop-api"),
		},
	}
	return Layout{Name: name, Blocks: withIDs(seed, []Block{{
		MinTime: Epoch, MaxTime: Epoch + 2*hour, Interval: interval, Series: src,
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}})}
}

// ManyValues1M is one block in which one label has 1,000,000 values, each of one series with two
// samples.
func ManyValues1M(seed uint64) Layout { return ManyValues("manyvalues1m", seed, 1_000_000) }

// ManyValues is one block of two hours in which ManyValuesLabel has the given number of values,
// rounded up to a multiple of 20.
func ManyValues(name string, seed uint64, values int) Layout {
	const pods, instance = 20, 2
	perPod := (values + pods - 1) / pods
	src := &product{
		kind: Counter, seed: mix(seed), target: instance,
		dims: []dim{
			fixed(labels.MetricName, ManyValuesName),
			fixed("container", "frontend"),
			{"instance", pods,
				func(d []int) string { return fmt.Sprintf("10.7.0.%d:9090", 100+d[instance]) }},
			fixed("job", "frontend"),
			follows("pod", instance, func(i int) string { return podName("frontend", seed, i) }),
			{ManyValuesLabel, perPod, func(d []int) string {
				// Random-looking and ascending within a pod, like ids that start with a time.
				n := d[len(d)-1]
				return fmt.Sprintf("%07d-%08x", n, mix(seed^uint64(d[instance]*perPod+n))>>32)
			}},
		},
	}
	return Layout{Name: name, Blocks: withIDs(seed, []Block{{
		MinTime: Epoch, MaxTime: Epoch + 2*hour, Interval: hour, Series: src,
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}})}
}

// ManyBlocks500 is 500 small blocks: the 20 days before Epoch of a small service, in two-hour
// blocks of two replicas.
func ManyBlocks500(seed uint64) Layout { return ManyBlocks("manyblocks500", seed, 500) }

// ManyBlocks is the given number of small blocks of two hours, in two streams with different values
// of the external label "replica".
func ManyBlocks(name string, seed uint64, n int) Layout {
	src := Service{Name: "billing", Namespace: "billing", Pods: 2, Handlers: 2}.Series(seed)
	blocks := make([]Block, n)
	for i := range blocks {
		from := Epoch - int64((n+1)/2-i/2)*2*hour
		blocks[i] = Block{
			MinTime: from, MaxTime: from + 2*hour, Interval: minute, Scraper: uint64(i % 2),
			Series: src,
			Labels: labels.FromStrings("cluster", "us-east-1", "replica",
				fmt.Sprintf("prometheus-%d", i%2)),
			ChunkFileSize: 1 << 20,
		}
	}
	return Layout{Name: name, Blocks: withIDs(seed, blocks)}
}

func podAddress(i int) string { return fmt.Sprintf("10.%d.%d.%d", 32+i>>16, i>>8&255, i&255) }

// podName returns a name like those of a ReplicaSet.
func podName(app string, seed uint64, i int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	h := mix(seed ^ uint64(i)<<20)
	suffix := make([]byte, 5)
	for j := range suffix {
		suffix[j] = alphabet[h%uint64(len(alphabet))]
		h /= uint64(len(alphabet))
	}
	return fmt.Sprintf("%s-%08x-%s", app, uint32(mix(seed)), suffix)
}
