// Package irregular remembers which blocks do not have the shape that streaming rests on.
//
// The index of a block is expected to hold series in label order, each with its label names
// ascending and distinct, and no empty value. No checksum covers that, and old writers broke it. A
// stream that meets an exception reports the block here. From then on the block is answered by the
// slower way: every matcher runs on posting lists, labels are normalised, and series are sorted in
// memory.
//
// # What is on disk
//
// One file, of package sealed: the blocks with a hash of their content, and what was found. A
// finding belongs to one content of a block, so a block that was repaired in place starts with a
// clean record. A file that does not verify is logged and ignored: the next request that meets the
// block finds out again.
//
// # Who owns what, and the locks
//
// Blocks.mu guards the findings; it is held for map operations alone. Blocks.saving orders writers
// of the file; Blocks.mu is taken under it, never the other way round.
//
// # Caveats
//
// A finding that the disk does not take lives as long as the process. That is accepted, because the
// cost is one request planned twice after the next start.
package irregular
