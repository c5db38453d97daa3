package diskcache

import (
	"fmt"
	"math"
	"sync"
	"time"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

// budget bounds the bytes that all caches write in a second and in a day. A crash loses at most the
// bytes since the last save, which are those of one segment.
type budget struct {
	dir    localfs.Dir
	perDay int64 // 0: no limit
	rate   int64 // bytes a second

	mu       sync.Mutex // guards following
	loaded   bool
	day      int64 // since 1970, UTC
	bytes    int64
	priority int64     // part of bytes that caches with Options.Priority wrote
	next     time.Time // when the next batch may be written
}

const (
	budgetName = "written"
	maxBudget  = 1 << 10
	// priorityShare is the part of a day's bytes, as 1/n, that only caches with Options.Priority
	// may use.
	priorityShare = 4
)

var budgetFormat = sealed.Format{Kind: "disk-written", Version: 1}

// load reads what was written today before this process started.
func (b *budget) load() {
	var day, bytes, priority int64
	payload, err := budgetFormat.Read(b.dir, budgetName, maxBudget)
	if err == nil {
		// An older process has not written the third number.
		if n, _ := fmt.Sscan(string(payload), &day, &bytes, &priority); n < 2 {
			err = sealed.ErrDamaged
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loaded {
		return
	}
	b.loaded = true
	if err == nil && day == today() && bytes > 0 {
		b.day, b.bytes, b.priority = day, b.bytes+bytes, b.priority+min(max(priority, 0), bytes)
	}
}

// spend counts bytes, and reports whether they may be written.
func (b *budget) spend(bytes int64, priority bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > b.leftLocked(priority) {
		return false
	}
	b.bytes += bytes
	if priority {
		b.priority += bytes
	}
	return true
}

// left returns how many bytes may be written today.
func (b *budget) left(priority bool) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leftLocked(priority)
}

// leftLocked returns how many bytes may be written today. The caller holds b.mu.
func (b *budget) leftLocked(priority bool) int64 {
	if day := today(); day != b.day {
		b.day, b.bytes, b.priority = day, 0, 0
	}
	if b.perDay == 0 {
		return math.MaxInt64
	}
	left := b.perDay - b.bytes
	if !priority {
		left -= max(b.perDay/priorityShare-b.priority, 0)
	}
	return left
}

// pace returns how long the writer of so many bytes waits before its next write.
func (b *budget) pace(bytes int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.next.Before(now) {
		b.next = now
	}
	b.next = b.next.Add(time.Duration(float64(bytes) / float64(b.rate) * float64(time.Second)))
	return b.next.Sub(now)
}

// save keeps the count for the next process.
func (b *budget) save() error {
	b.mu.Lock()
	payload := fmt.Appendf(nil, "%d %d %d", b.day, b.bytes, b.priority)
	b.mu.Unlock()
	return budgetFormat.Write(b.dir, budgetName, payload, false)
}

func today() int64 { return time.Now().Unix() / int64(24*time.Hour/time.Second) }
