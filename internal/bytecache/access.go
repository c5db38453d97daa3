package bytecache

import (
	"sync"
	"time"
)

// Ristretto's policy learns of look-ups through a channel with room for three
// batches, and forgets those that find it full. In a burst, which is what a
// query is, that is almost all of them (nine of ten were measured): values used
// often are then as unknown to it as those used once, and a scan evicts them.
// So look-ups are logged here, and told to the policy by one goroutine that
// pauses for the policy's own to keep up.
const (
	// accessLogSize keys are handed over at once.
	accessLogSize = 32
	// accessLogs are waiting at most: 32,768 look-ups, beyond which they are
	// forgotten after all.
	accessLogs = 1024
	// countBatch keys are what ristretto takes at a time. Fewer cost more
	// pauses; more keep the keys looked up last uncounted for longer.
	countBatch = 128
	// After pauseAfter keys, of the three batches that would fit, the policy
	// has pause to count them. A sleep, because yielding does not make another
	// goroutine run when there is more than one processor.
	pauseAfter = 2 * countBatch
	pause      = 20 * time.Microsecond
)

// accessLog holds keys that were looked up, for the policy to count.
type accessLog struct {
	n    int
	keys [accessLogSize]uint64
	// urgent: a Set of one of the keys follows. The policy compares it with
	// others by their counts, so its own is to be there.
	urgent bool
}

func (l *accessLog) add(key uint64) (full bool) {
	l.keys[l.n] = key
	l.n++
	return l.n == len(l.keys)
}

// missLog is the log of look-ups that found nothing. It is one for all shards,
// so that it fills, and is counted, while what was missed is being read.
type missLog struct {
	mu  sync.Mutex
	log *accessLog
}

// logMiss logs a look-up that found nothing. The caller holds a shard's mu, and
// the cache is not closed.
func (m *Values[V]) logMiss(mixed uint64) {
	m.misses.mu.Lock()
	if m.misses.log.add(mixed) {
		m.misses.log = m.handOver(m.misses.log)
	}
	m.misses.mu.Unlock()
}

// flushMisses hands over the misses so far, because one of them is being set.
// The caller holds a shard's mu, and the cache is not closed.
func (m *Values[V]) flushMisses() {
	m.misses.mu.Lock()
	if m.misses.log.n > 0 {
		m.misses.log.urgent = true
		m.misses.log = m.handOver(m.misses.log)
	}
	m.misses.mu.Unlock()
}

// handOver sends a log to be counted, or forgets it when too many wait, and
// returns an empty one. The caller holds the lock of the log, and the cache is
// not closed.
func (m *Values[V]) handOver(log *accessLog) *accessLog {
	select {
	case m.accesses <- log:
		return m.logs.Get().(*accessLog)
	default:
		log.n, log.urgent = 0, false
		return log
	}
}

// count tells the policy of the look-ups.
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
			// Nothing follows that would fill the batch: fill it with a key
			// that is never set.
			for n%countBatch != 0 {
				tell(fillerKey)
			}
		}
		log.n, log.urgent = 0, false
		m.logs.Put(log)
	}
}

// fillerKey may be some key's image: nothing but that key's count suffers.
const fillerKey = ^uint64(0)
