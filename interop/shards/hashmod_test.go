package shards

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/interop/internal/process"
)

// TestHashmodToShards: the way from Thanos's hashmod relabelling to shards, as docs/sharding.md
// describes it, behind a real Querier. Both run side by side until the Querier knows the groups.
// Every query finds every sample.
func TestHashmodToShards(t *testing.T) {
	t.Parallel()
	const before, after = 3, 2
	c := newCluster(t, 12*time.Second)
	ports, err := process.FreePorts(2 * before)
	if err != nil {
		t.Fatal(err)
	}
	var stores strings.Builder
	for i := range before {
		fmt.Fprintf(&stores, "- address: %s\n", ports[i])
		c.startProcess("hashmod", i, ports[i], ports[before+i],
			fmt.Sprintf("--selector.relabel-config="+
				"[{action: hashmod, source_labels: [__block_id], target_label: s, modulus: %d},"+
				" {action: keep, source_labels: [s], regex: %d}]", before, i))
	}
	c.ready(before)
	q := startQuerier(t, c, "--endpoint.info-timeout=1s") // its interval, too
	replace(t, q.endpoints, "endpoints:\n"+stores.String())
	q.knows(before)
	q.complete(shelf, 3, "with hashmod")
	b := &bytesOf{q: q}
	h := newHistory(t, "from hashmod to shards")
	stop := b.continuously(h, 1, 50*time.Millisecond)

	c.configure(1, after)
	c.start(0, after)
	c.ready(after) // all have taken on epoch 1, and serve its blocks
	replace(t, q.endpoints, "endpoints:\n"+stores.String()+
		strings.TrimPrefix(q.groupsText(after), "endpoints:\n"))
	q.knows(before + after)
	q.groups(after)
	q.knows(after)
	c.stop(syscall.SIGTERM, inZone("hashmod"))
	q.complete(shelf, 3, "with shards")
	stop()
	h.check(5)
}
