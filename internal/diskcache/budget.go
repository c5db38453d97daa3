package diskcache

import (
	"fmt"
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

	mu     sync.Mutex // guards following
	loaded bool
	day    int64 // since 1970, UTC
	bytes  int64
	next   time.Time // when the next batch may be written
}

const (
	budgetName = "written"
	maxBudget  = 1 << 10
)

var budgetFormat = sealed.Format{Kind: "disk-written", Version: 1}

// load reads what was written today before this process started.
func (b *budget) load() {
	var day, bytes int64
	payload, err := budgetFormat.Read(b.dir, budgetName, maxBudget)
	if err == nil {
		_, err = fmt.Sscanf(string(payload), "%d %d", &day, &bytes)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loaded {
		return
	}
	b.loaded = true
	if err == nil && day == today() && bytes > 0 {
		b.day, b.bytes = day, b.bytes+bytes
	}
}

// spend counts bytes, and reports whether they may be written.
func (b *budget) spend(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if day := today(); day != b.day {
		b.day, b.bytes = day, 0
	}
	if b.perDay > 0 && b.bytes+bytes > b.perDay {
		return false
	}
	b.bytes += bytes
	return true
}

// pace returns how long the writer of a batch waits before its next one.
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
	payload := fmt.Appendf(nil, "%d %d", b.day, b.bytes)
	b.mu.Unlock()
	return budgetFormat.Write(b.dir, budgetName, payload, false)
}

func today() int64 { return time.Now().Unix() / int64(24*time.Hour/time.Second) }
