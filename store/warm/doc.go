// Package warm keeps caches warm across restarts and compactions.
//
// A Recorder records which matcher sets Series requests use on which blocks, within the last two to
// four hours. A Warmer saves that in the data directory and replays it in the background. After a
// start it warms the served blocks, index headers first. A block from a compaction is warmed with
// the sets of the blocks that it replaces, before these leave. A block that another shard has
// served is warmed with the sets that the shard recorded, and with the pages that it has in memory
// (Heat, TakeOver). A replay reads postings and series like a request without chunks, so it fills
// every cache on that path. If a disk below the memory of the caches outlives the process, a start
// also reads the pages from it that memory had before, chunk pages included.
//
// # Bounds
//
// A replay ends when all sets are done, at its time limit, or at its limit of index bytes. The last
// set may exceed the byte limit, because the postings of a set are read whole. At most two matcher
// sets are replayed concurrently, and none is started while requests wait. Only blocks that are to
// be replaced, or handed over, wait for a replay, and at most for its time limit. Hot pages have a
// byte limit of their own and share the time limit.
//
// # Files on disk
//
// The content of a Recorder is one file, snapshotName, in the format of package sealed, with at
// most some 3 MB. It is replaced in one step. A file that does not verify or has another version is
// logged and ignored. The file stays after it was read, so that two restarts in a row lose nothing.
// A second file, pagesName, has the addresses of the pages in memory, at most 4 MiB of them. It is
// not replaced before its pages have been read.
//
// # Ownership and locks
//
// Recorder.mu guards all of a Recorder. Nothing is read, written, compiled or waited for under it.
// Warmer.mu guards the known view and the blocks that are being warmed. It is held for map
// operations only, and never together with Recorder.mu.
//
// # Accepted risks
//
// A Recorder does not count how often a set was used on a block, only how often the set and the
// block were used at all. A set may therefore be replayed for a block that rarely needs it. This is
// accepted because a counter for each pair would need many times the memory.
package warm
