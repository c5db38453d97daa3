package bytecache

import (
	"sync"
	"time"
)

// Ristretto's policy learns of look-ups through a channel with space for three batches, and drops a
// batch that finds it full. In a burst, which is what a query is, it drops almost all of them (nine
// of ten were measured). Values that are used often are then as unknown as values used once, and a
// scan evicts them. Therefore look-ups are logged here, and one goroutine passes them to the policy
// with pauses in which the policy can keep up.
const (
	// accessLogSize is the number of keys in a log. A full log is queued for counting.
	accessLogSize = 32
	// accessLogs is the maximum number of queued logs, 32,768 look-ups. Further look-ups are
	// dropped.
	accessLogs = 1024
	// countBatch is the number of keys that ristretto accepts at a time. Fewer cost more pauses;
	// more leave the last look-ups uncounted for longer.
	countBatch = 128
	// pauseAfter is the number of keys, of the three batches that would fit, after which the policy
	// gets pause to count them. A sleep is needed because yielding does not run another goroutine
	// if there is more than one processor.
	pauseAfter = 2 * countBatch
	pause      = 20 * time.Microsecond
)

// accessLog holds the keys of look-ups that the policy has not counted.
type accessLog struct {
	n    int
	keys [accessLogSize]uint64
	// urgent means that a Set of one of the keys follows. The policy compares its count with the
	// counts of other keys, and so must know it.
	urgent bool
}

func (l *accessLog) add(key uint64) (full bool) {
	l.keys[l.n] = key
	l.n++
	return l.n == len(l.keys)
}

// missLog is the log of look-ups that missed. All shards share one, so that it fills, and is
// counted, while the missed values are being read.
type missLog struct {
	mu  sync.Mutex
	log *accessLog
}

// logMiss logs a look-up that missed. The caller holds a shard's mu, and the cache is open.
func (m *Values[V]) logMiss(mixed uint64) {
	m.misses.mu.Lock()
	if m.misses.log.add(mixed) {
		m.misses.log = m.handOver(m.misses.log)
	}
	m.misses.mu.Unlock()
}

// flushMisses queues the misses logged so far, because one of them is being set. The caller holds a
// shard's mu, and the cache is open.
func (m *Values[V]) flushMisses() {
	m.misses.mu.Lock()
	if m.misses.log.n > 0 {
		m.misses.log.urgent = true
		m.misses.log = m.handOver(m.misses.log)
	}
	m.misses.mu.Unlock()
}

// handOver queues a log for counting, or drops it if the queue is full, and returns an empty log.
// The caller holds the lock of the log, and the cache is open.
func (m *Values[V]) handOver(log *accessLog) *accessLog {
	select {
	case m.accesses <- log:
		return m.logs.Get().(*accessLog)
	default:
		log.n, log.urgent = 0, false
		return log
	}
}

// count passes look-ups to the policy.
func (m *Values[V]) count() {
	defer close(m.counted)
	n := 0
	tell := func(key uint64) {
		m.policy.Get(key)
		if n++; n%pauseAfter == 0 {
			time.Sleep(pause)
		}
	}
	for log := range m.accesses {
		if m.closing.Load() {
			continue
		}
		for _, key := range log.keys[:log.n] {
			tell(key)
		}
		if log.urgent && len(m.accesses) == 0 {
			// No further look-up completes the batch: complete it with a key that is never set.
			for n%countBatch != 0 {
				tell(fillerKey)
			}
		}
		log.n, log.urgent = 0, false
		m.logs.Put(log)
	}
}

// fillerKey may equal the image of a real key: only that key's count is then wrong.
const fillerKey = ^uint64(0)
