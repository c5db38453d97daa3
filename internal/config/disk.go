package config

import (
	"fmt"

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

// divide divides the disk between index pages and chunk pages. Its error says what to set.
func (d *Disk) divide() error {
	const gib = 1 << 30
	total := d.Total.Bytes
	least, most := int64(2*minDiskKind), 2*diskcache.MaxBytes
	if !d.Index.Given {
		d.Index.Bytes = total / 10 * indexTenths
		least = minDiskKind * 10 / indexTenths
		most = diskcache.MaxBytes / (10 - indexTenths) * 10 / gib * gib
	}
	d.Bytes[IndexPages], d.Bytes[ChunkPages] = d.Index.Bytes, total-d.Index.Bytes
	if total < least {
		return fmt.Errorf("%s is too small: set at least %s", &d.Total, sizeText(least))
	}
	if total > most {
		return fmt.Errorf("%s is too large: set at most %s", &d.Total, sizeText(most))
	}
	// What chunk pages cannot have is for index pages.
	least, most = minDiskKind, min(total-minDiskKind, diskcache.MaxBytes)
	if rest := total - diskcache.MaxBytes; rest > least {
		least = (rest + gib - 1) / gib * gib
	}
	if d.Index.Bytes < least || d.Index.Bytes > most {
		return fmt.Errorf("%s of %s: set from %s to %s",
			&d.Index, &d.Total, sizeText(least), sizeText(most))
	}
	return nil
}

// fitDisk divides the disk and computes the memory that this takes.
func (m *Memory) fitDisk(limit int64) error {
	d := &m.Disk
	if d.Total.Bytes == 0 {
		return nil
	}
	if err := d.divide(); err != nil {
		return fmt.Errorf("%w: index pages and chunk pages need from %s to %s each",
			err, sizeText(minDiskKind), sizeText(diskcache.MaxBytes))
	}
	if !d.Prefetch.Given {
		d.Prefetch.Bytes = d.Index.Bytes / 4 * prefetchQuarters
	} else if d.Prefetch.Bytes > d.Index.Bytes {
		return fmt.Errorf("%s is more than the disk cache has for index pages: set at most %s",
			&d.Prefetch, sizeText(d.Index.Bytes))
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
