package memcached

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
)

func ringOf(addrs ...string) *ring {
	var servers []*server
	for _, a := range addrs {
		servers = append(servers, &server{addr: endpoint{addr: a}})
	}
	return newRing(servers)
}

// TestServerThatGoesTakesOnlyItsKeys: removing a server moves only its own keys.
func TestServerThatGoesTakesOnlyItsKeys(t *testing.T) {
	const n, keys = 7, 20_000
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("10.0.0.%d:11211", i))
	}
	all := ringOf(addrs...)
	owner := func(r *ring, i int) string {
		// IDs resemble those of pages: nearly equal, different at the end.
		var id ID
		copy(id[:], "01HZXBLOCKBLOCKB")
		copy(id[20:], strconv.Itoa(i))
		return r.servers[r.pick(&id)].addr.addr
	}
	counts := map[string]int{}
	for i := range keys {
		counts[owner(all, i)]++
	}
	for a, c := range counts {
		if c < keys/n*9/10 || c > keys/n*11/10 {
			t.Errorf("%s has %d of %d keys", a, c, keys)
		}
	}
	for i, gone := range addrs {
		rest := ringOf(slices.Delete(slices.Clone(addrs), i, i+1)...)
		for k := range keys {
			before, after := owner(all, k), owner(rest, k)
			if before != after && before != gone {
				t.Fatalf("without %s key %d moves from %s to %s", gone, k, before, after)
			}
		}
	}
	// The order in which servers are found does not matter.
	slices.Reverse(addrs)
	other := ringOf(addrs...)
	for k := range keys {
		if owner(all, k) != owner(other, k) {
			t.Fatalf("key %d depends on the order of the servers", k)
		}
	}
}

func TestSortByServer(t *testing.T) {
	r := ringOf("a:1", "b:1", "c:1")
	var ids []ID
	var at []int32
	for i := range 100 {
		ids = append(ids, idOf(strconv.Itoa(i)))
		if i%3 != 0 {
			at = append(at, int32(i))
		}
	}
	sorted, ends := r.sort(ids, at)
	begin := 0
	for s, end := range ends {
		part := sorted[begin:end]
		if !slices.IsSorted(part) {
			t.Errorf("server %d: %v", s, part)
		}
		for _, i := range part {
			if r.pick(&ids[i]) != s {
				t.Errorf("ID %d is with server %d", i, s)
			}
		}
		begin = end
	}
	slices.Sort(sorted)
	if !slices.Equal(sorted, at) {
		t.Errorf("got %v, want %v", sorted, at)
	}
}
