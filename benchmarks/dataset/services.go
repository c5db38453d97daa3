package dataset

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
)

// Service is a source of the series of a scraped service and its containers, as used by dashboards.
type Service struct {
	Name, Namespace string
	Pods            int
	// Handlers is the number of HTTP handlers per pod.
	Handlers int
	// Native adds native histograms, of integers, floats and of a gauge.
	Native bool
	// Rollout is the time at which all pods were replaced, in milliseconds. 0 = never.
	Rollout int64
}

// upperBounds are the buckets of classic histograms, in seconds.
var upperBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.Inf(1)}

// Series returns the service's series. Their values depend on seed, their labels do not.
func (s Service) Series(seed uint64) Source {
	var c collector
	for i := range s.Pods {
		if s.Rollout == 0 {
			s.pod(&c, seed, i, 0, 0)
			continue
		}
		s.pod(&c, seed, i, 0, s.Rollout)
		s.pod(&c, seed, s.Pods+i, s.Rollout, 0)
	}
	return newList(c.series)
}

// collector collects the series of one target after the other.
type collector struct {
	series   []Series
	seed     uint64
	target   uint64
	from, to int64
	common   []string
}

// add adds a series with the target's labels and the given ones. without is the name of the label
// that does not affect the values.
func (c *collector) add(kind Kind, share float64, without, metric string, nameValues ...string) {
	ls := labels.FromStrings(
		append(append([]string{labels.MetricName, metric}, c.common...), nameValues...)...)
	c.series = append(c.series, Series{
		Labels: ls, Kind: kind, Share: share, Seed: labelSeed(c.seed, ls, without),
		Target: c.target, From: c.from, To: c.to,
	})
}

func (s Service) pod(c *collector, seed uint64, i int, from, to int64) {
	names := labelSeed(0, labels.FromStrings("service", s.Name), "")
	pod, node := podName(s.Name, names, i), fmt.Sprintf("node-%02d", mix(names+uint64(i))%6)
	c.seed, c.from, c.to = seed, from, to
	c.target = mix(names ^ uint64(i)<<8)
	c.common = []string{
		"container", s.Name, "endpoint", "http", "instance",
		podAddress(int(names%0xffff)+i) + ":8080", "job", s.Name,
		"namespace", s.Namespace, "node", node, "pod", pod, "service", s.Name,
	}
	c.add(Up, 0, "", "up")
	c.add(Ratio, 0, "", "scrape_duration_seconds")
	c.add(Bytes, 0, "", "process_resident_memory_bytes")
	c.add(Bytes, 0, "", "go_memstats_heap_inuse_bytes")
	c.add(Counter, 1.0/64, "", "go_gc_cycles_total")
	for h := range s.Handlers {
		handler := fmt.Sprintf("/api/v1/%s/%d", s.Name, h)
		for _, method := range []string{"GET", "POST"} {
			for i, code := range []string{"200", "404", "500"} {
				share := []float64{1, 0.02, 0.001}[i]
				c.add(Counter, share, "code", WholeMetricName, "handler", handler, "method", method,
					"code", code)
			}
		}
		const metric = "http_request_duration_seconds"
		for b, le := range upperBounds {
			share := 1 - math.Exp2(-float64(b+1)) // of the requests within the bound
			if math.IsInf(le, 1) {
				share = 1
			}
			c.add(Counter, share, "le", metric+"_bucket", "handler", handler, "le", formatBound(le))
		}
		c.add(Counter, 0, "", metric+"_count", "handler", handler)
		c.add(Seconds, 0, "", metric+"_sum", "handler", handler)
		if s.Native {
			c.add(Histogram, 0, "", metric, "handler", handler)
		}
	}
	if s.Native {
		c.add(FloatHistogram, 0, "", "namespace:http_request_duration_seconds:rate5m")
		c.add(GaugeHistogram, 0, "", "worker_queue_wait_seconds")
	}

	// The kubelet's metrics about the pod's containers have the kubelet's labels.
	c.common = []string{
		"endpoint", "https-metrics", "instance", "192.168.1." + node[len("node-"):] + ":10250",
		"job", "kubelet",
		"metrics_path", "/metrics/cadvisor", "namespace", s.Namespace, "node", node, "pod", pod,
		"service", "kubelet",
	}
	for _, container := range []string{s.Name, "istio-proxy"} {
		id := fmt.Sprintf("/kubepods/burstable/pod%016x/%016x", mix(c.target),
			mix(c.target^uint64(len(container))))
		more := []string{"container", container, "id", id, "image",
			"registry.example.com/" + container + ":v1.14.2"}
		c.add(Seconds, 0, "", "container_cpu_usage_seconds_total", append(more, "cpu", "total")...)
		c.add(Bytes, 0, "", "container_memory_working_set_bytes", more...)
		c.add(Counter, 0, "", "container_fs_writes_total",
			append(more, "device", "/dev/nvme0n1")...)
	}
}

// formatBound writes a bucket's bound in the exposition format.
func formatBound(le float64) string {
	if math.IsInf(le, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(le, 'g', -1, 64)
}

// Nodes returns a source of the series of node exporters.
func Nodes(seed uint64, n int) Source {
	c := collector{seed: seed}
	for i := range n {
		c.target = mix(uint64(i) + 0x6e6f6465)
		c.common = []string{
			"container", "node-exporter", "endpoint", "metrics", "instance",
			fmt.Sprintf("192.168.1.%02d:9100", i),
			"job", "node-exporter", "namespace", "monitoring", "node", fmt.Sprintf("node-%02d", i),
			"service", "node-exporter",
		}
		c.add(Up, 0, "", "up")
		for cpu := range 4 {
			modes := []string{"idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"}
			for _, mode := range modes {
				c.add(Seconds, 0, "", "node_cpu_seconds_total", "cpu", strconv.Itoa(cpu), "mode",
					mode)
			}
		}
		memory := []string{"node_memory_MemAvailable_bytes", "node_memory_MemFree_bytes",
			"node_memory_MemTotal_bytes"}
		for _, m := range memory {
			c.add(Bytes, 0, "", m)
		}
		for _, m := range []string{"node_load1", "node_load5", "node_load15"} {
			c.add(Ratio, 0, "", m)
		}
		filesystems := [][2]string{{"/dev/nvme0n1p1", "/"}, {"/dev/nvme1n1", "/var/lib/containerd"},
			{"tmpfs", "/run"}}
		for _, fs := range filesystems {
			c.add(Bytes, 0, "", "node_filesystem_avail_bytes", "device", fs[0], "fstype", "ext4",
				"mountpoint", fs[1])
		}
	}
	return newList(c.series)
}

// Awkward returns a source of series that gateways often handle wrongly: label sets that are
// prefixes of others, names and values that are not ASCII, a label that the block's external labels
// contain too, values with quotes and line ends.
func Awkward(seed uint64) Source {
	c := collector{seed: seed, target: 1}
	for _, nameValues := range [][]string{
		{},
		{"a", "1"},
		{"a", "1", "b", "1"},
		{"a", "1", "b", "1", "z", "1"},
		{"a", "1", "z", "1"},
		{"z", "1"},
	} {
		c.add(Counter, 0, "", "prefix_chain_total", nameValues...)
	}
	c.add(Counter, 0, "", "federated_samples_total", "cluster", "edge-7")
	c.add(Counter, 0, "", "federated_samples_total", "cluster", "edge-8", "replica", "x")
	c.add(Counter, 0, "", "federated_samples_total", "replica", "x")
	c.add(Counter, 0, "", "federated_samples_total", "replica", "y")
	c.add(Bytes, 0, "", "größe.bytes", "straße", "Ä", "emoji", "🥫")
	c.add(Ratio, 0, "", "quoted", "value", "say \"hi\"\n\\o/")
	return newList(c.series)
}
