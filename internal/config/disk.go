package config

import (
	"fmt"

	"github.com/alecthomas/units"

	"larder/internal/diskcache"
)

// Disk divides the local disk among the kinds that are cached on it. Flags fill Total and Index,
// then Memory.Fit computes the other fields.
type Disk struct {
	// Total is for all kinds, 0 for none. Index is the part for index pages; chunk pages get the
	// rest.
	Total, Index Amount
	// Bytes is the size of each kind on the disk.
	Bytes [Kinds]int64
	// Queue is the memory of each kind's pages that wait to be written.
	Queue int64
	// Prefetch is for indexes that are read before a query needs them, 0 for none. It is part of
	// Index.
	Prefetch Amount
	// PrefetchRead is the size of one of these reads.
	PrefetchRead int64
	// Memory is for the indexes of what is on the disk, the queues, and running reads.
	Memory Amount
}

const (
	// minDiskKind is the least size of a kind on the disk.
	minDiskKind = 16 << 20
	// Of the disk, index pages get indexTenths tenths by default. An index is about a tenth of a
	// block, but a cold query needs most of its trips for it.
	indexTenths = 4
	// defaultDiskQueue is the default of Disk.Queue.
	defaultDiskQueue = 16 << 20
	// Of the index pages, prefetchQuarters quarters are those of prefetched indexes by default. The
	// rest is for what queries read of other blocks.
	prefetchQuarters    = 3
	defaultPrefetchRead = 8 << 20
)

// DiskOptions returns the options of a kind's cache on the disk.
func (m *Memory) DiskOptions(k Kind) diskcache.Options {
	return diskcache.Options{
		MaxBytes: m.Disk.Bytes[k], PageBytes: m.Page[k].Bytes, QueueBytes: m.Disk.Queue,
		SecondUse: k == ChunkPages, Priority: k == IndexPages,
	}
}

// fitDisk divides the disk and computes the memory that this takes.
func (m *Memory) fitDisk(limit int64) error {
	d := &m.Disk
	if d.Total.Bytes == 0 {
		return nil
	}
	if !d.Index.Given {
		d.Index.Bytes = d.Total.Bytes / 10 * indexTenths
	}
	d.Bytes[IndexPages], d.Bytes[ChunkPages] = d.Index.Bytes, d.Total.Bytes-d.Index.Bytes
	if d.Bytes[IndexPages] < minDiskKind || d.Bytes[ChunkPages] < minDiskKind {
		return fmt.Errorf("%s, of which %s are for index pages and the rest for chunk pages: "+
			"each needs at least %s", &d.Total, &d.Index, units.Base2Bytes(minDiskKind))
	}
	if n := max(d.Bytes[IndexPages], d.Bytes[ChunkPages]); n > diskcache.MaxBytes {
		return fmt.Errorf("%s gives one kind of pages %s, more than the limit of %s",
			&d.Total, units.Base2Bytes(n), units.Base2Bytes(diskcache.MaxBytes))
	}
	if !d.Prefetch.Given {
		d.Prefetch.Bytes = d.Index.Bytes / 4 * prefetchQuarters
	} else if d.Prefetch.Bytes > d.Index.Bytes {
		return fmt.Errorf("%s is more than %s, the part of the disk cache for index pages",
			&d.Prefetch, units.Base2Bytes(d.Index.Bytes))
	}
	d.Queue, d.PrefetchRead = defaultDiskQueue, defaultPrefetchRead
	if limit > 0 {
		d.Queue = max(min(d.Queue, limit/64), 1<<20)
		d.PrefetchRead = max(min(d.PrefetchRead, limit/128), 1<<20)
	}
	page := max(m.Page[IndexPages].Bytes, m.Page[ChunkPages].Bytes)
	d.Memory = Amount{
		Bytes: diskcache.ReadBytes(page), Given: true, From: "the memory of " + d.Total.From,
	}
	if d.Prefetch.Bytes > 0 {
		d.Memory.Bytes += d.PrefetchRead
	}
	for _, k := range []Kind{IndexPages, ChunkPages} {
		d.Memory.Bytes += m.DiskOptions(k).MemoryBytes()
	}
	return nil
}
