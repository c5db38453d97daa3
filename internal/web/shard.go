package web

import (
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Shard is the member of the process among the shards, for the overview.
type Shard struct {
	// Facts are its name, its epochs and what a change waits for.
	Facts []Fact
	Peers []ShardPeer

	// Alone says that it started without a record of epochs and without a peer.
	Alone bool
	// Duplicates are the members of which two processes run. Silent and Foreign are the addresses
	// of peers that do not answer, or belong to another cluster.
	Duplicates, Silent, Foreign []string
	// Waits is what a change to another epoch waits for, empty for nothing.
	Waits string
}

// ShardPeer is the last report of a peer.
type ShardPeer struct {
	Member, Address, Serving, ChangingTo string
	Ready                                bool
	Age                                  time.Duration
}

func (s *Shard) findings(add addFinding) {
	const here = "#shard"
	if s.Alone {
		add(true, here, "The shard started without a record of epochs, and no peer answered. "+
			"Blocks may be missing from answers.")
	}
	if len(s.Duplicates) > 0 {
		add(true, here, "Two processes are the same member: %s.",
			strings.Join(s.Duplicates, "; "))
	}
	if len(s.Foreign) > 0 {
		add(true, here, "%s to another cluster, and its answers are refused: %s.",
			plural(len(s.Foreign), "address of peers belongs", "addresses of peers belong"),
			strings.Join(s.Foreign, ", "))
	}
	if len(s.Silent) > 0 {
		add(false, here, "%s not answer: %s.",
			plural(len(s.Silent), "address of peers does", "addresses of peers do"),
			strings.Join(s.Silent, ", "))
	}
	if s.Waits != "" {
		add(false, here, "A change of the shards waits for %s.", s.Waits)
	}
}

// partFindings names the parts of the process that are not used, by its metrics.
func partFindings(families []*dto.MetricFamily, add addFinding) {
	diskOff := false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			off := value(m) == 0
			switch name := f.GetName(); {
			case name == "larder_config_last_reload_successful" && off:
				add(true, "", "The configuration “%s” changed and is invalid. "+
					"The last valid one stays in use. The log says what is wrong.",
					label(m, "kind"))
			case name == "larder_data_dir_usable" && off:
				add(true, "", "The data directory cannot be used. The log says why.")
			case name == "larder_disk_cache_readable" || name == "larder_disk_cache_writable":
				diskOff = diskOff || off
			case name == "larder_memcached_breaker_state" && value(m) == 2:
				add(false, "", "The memcached server %s fails and is not asked (%s).",
					label(m, "server"), label(m, "direction"))
			}
		}
	}
	if diskOff {
		add(false, "", "The disk cache is off, or does not write: the disk is full, slow or "+
			"failing. The log says why.")
	}
}
