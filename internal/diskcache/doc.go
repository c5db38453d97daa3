// Package diskcache is a byte cache on a local disk, for the pages of objects. OpenDisk makes a
// Disk of a directory, and Disk.Open a Cache for each kind of pages. A Cache passes the conformance
// suite of package bytecache. It never delays a request for longer than its deadline, and a disk
// that is unwell is not used until it is well.
//
// # Files
//
// Each cache has a subdirectory of segments, files of records in the order in which they were
// written (segment.go). A record is a page with its whole identity and a checksum. Pages wait in a
// queue before they are written, up to 1 MiB sorted by identity. Therefore neighbouring pages of an
// object lie next to each other: an extent, which is read with one call. A full segment is sealed
// with the list of its records. A start reads these lists only, newest first and in the background,
// and the records of the last segment, which a killed process did not seal.
//
// There are about 256 segments, of 1 MiB to 256 MiB each. If there is no space for another one, the
// oldest is removed. Its pages that were read from the disk, or used a second time in memory, since
// they were written, are written again first. They may take three quarters of the new segment.
//
// # Memory
//
// The index (table.go) has no pointers, so that the garbage collector does not read it. It takes 7
// bytes for each place, and has 16 places for 14 pages. A page of 8 KiB takes 8,448 bytes on the
// disk:
//
//	100 GB / 8,448 B = 11.8 million pages
//	11.8 million * 16/14 * 7 B = 95 MB, 0.095 % of the disk
//	second use: 11.8 million / 8 * 2 B = 3 MB, 0.003 %
//
// Smaller pages need more: 1 KiB pages 0.63 % of the disk. A cache also holds up to
// Options.QueueBytes of pages that wait, and 3 MiB of those that are being written. The reads of
// all caches hold up to 16 MiB, or 32 pages above 512 KiB.
//
// # What fsync promises
//
// A segment is synced when it is sealed, and its name in the directory. If the machine crashes,
// sealed segments are there, and any part of the last one may be lost. If only the process is
// killed, what was written is there. Nothing is believed because it was synced: each record is
// verified whenever it is read, the same as a value of memcached: identity, which includes the
// version of the object's content, length and checksum. Whether the bytes equal those of the bucket
// is for the decoder to verify.
//
// # Health
//
// A look-up waits no longer for the disk than the bucket would take (Disk.timeout). A read that
// hangs cannot be cancelled: it goes on, and its bytes are dropped. The disk is turned off, with
// one warning, after 16 reads that have not returned, 16 look-ups in a row that timed out, 4 reads
// in a row that failed, a write that failed, or if too little space is free. A disk that cannot be
// written, because it is full or read-only, is still read. Probes turn it on again, after a second
// at first and then less and less often, up to a minute: one that reads a segment turns reads on,
// and one that writes, syncs and reads a file turns all on.
//
// Before a segment is created, and every ten seconds, the free space of the file system is checked.
// If it is less than DiskOptions.MinFreeBytes, old segments are removed. If the directory was
// removed, or another disk is mounted in its place, the caches begin again with what is there, with
// one warning.
//
// # Ownership of bytes
//
// A value passed to Set belongs to the cache until it is written, and must not change. A value that
// Fetch returns is a copy of its own, or one that waits to be written, and must not be written to.
//
// # Locks and goroutines
//
// LOCKING: Cache.mu guards the index, the queue and the table of segments. Disk.mu guards the state
// of recovery. budget.mu guards the bytes of the day. fetch.mu guards the results of one look-up.
// None is held while another is acquired, or while a file is read, written or closed. The fields of
// writer belong to the goroutine of Cache.run, except that it changes cur's size under Cache.mu.
//
// A cache has one goroutine that writes, and up to 8 for each look-up, 32 for all, that read. A
// Disk that is off has one that probes it.
//
// # Accepted risks
//
// A page that is taken for another one by the index is not written, or not found: it is read from
// the next tier. Del removes a page from the index and not from its segment. After a restart it is
// found again, fails its checksum where it is decoded, and is deleted again.
package diskcache
