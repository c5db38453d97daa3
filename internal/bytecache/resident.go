package bytecache

// Resident is the part of a cache that is in the heap: Memory and Tiered.
type Resident interface {
	// Each calls f for the key of every value in memory. asked means that more than one request
	// used the value. Values that are set or dropped meanwhile may be left out. f must not call the
	// cache.
	Each(f func(local uint64, asked bool))
	// Ask counts a value as one that more than one request uses, if it is in memory.
	Ask(local uint64)
}

var (
	_ Resident = (*Memory)(nil)
	_ Resident = (*Tiered)(nil)
)

// unmix is the inverse of mix. Its existence proves that no two keys collide.
func unmix(k uint64) uint64 {
	k ^= k>>31 ^ k>>62
	k *= 0x319642b2d24d8ec3 // times the multiplier of mix it is 1, modulo 2^64
	k ^= k>>27 ^ k>>54
	k *= 0x96de1b173f119089
	k ^= k>>30 ^ k>>60
	return k
}

// Each calls f for every key. It locks one shard at a time.
func (m *Values[V]) Each(f func(key uint64, asked bool)) {
	type held struct {
		key   uint64
		asked bool
	}
	var all []held
	for i := range m.shards {
		s := &m.shards[i]
		all = all[:0]
		s.mu.Lock()
		for mixed, e := range s.table {
			all = append(all, held{unmix(mixed), e.asked})
		}
		s.mu.Unlock()
		for _, h := range all {
			f(h.key, h.asked)
		}
	}
}

// Ask makes a value one that was requested again, see SetAsked. It does not count as a look-up.
func (m *Values[V]) Ask(key uint64) {
	mixed := mix(key)
	s := m.shardOf(mixed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table[mixed]; e != nil {
		e.asked = true
	}
}

// Each implements Resident.
func (m *Memory) Each(f func(local uint64, asked bool)) { m.values.Each(f) }

// Ask implements Resident.
func (m *Memory) Ask(local uint64) { m.values.Ask(local) }

// Each implements Resident. It passes over the values of the tiers below memory.
func (t *Tiered) Each(f func(local uint64, asked bool)) {
	if t.memory != nil {
		t.memory.Each(f)
	}
}

// Ask implements Resident.
func (t *Tiered) Ask(local uint64) {
	if t.memory != nil {
		t.memory.Ask(local)
	}
}
