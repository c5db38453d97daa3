// Package warm keeps caches warm across restarts and compactions.
//
// A Recorder notes what Series requests ask of which blocks: matcher sets with the labels to be
// removed, each with the blocks that it was asked of within the last two to four hours. A Warmer
// writes that down in the data directory, and replays it in the background: after a start for the
// blocks that are served, headers first; and for a block that has come to replace others, with what
// was asked of those, before they are let go. A replay is a walk over postings and series as a
// request without chunks makes it, so it fills whatever caches there are.
//
// # Bounds
//
// A replay ends when all is done, when its time is up, or when it has gone through as many bytes of
// index as it may; the postings of a set are read whole, so the last one may go beyond. Two matcher
// sets at most are replayed at once, and none is begun while requests wait. Nothing waits for a
// replay but blocks that are to be replaced, and those no longer than its time.
//
// # What is on disk
//
// One file, snapshotName, of package sealed: what a Recorder holds, at most some 3 MB. There is an
// old one or a new one, never half of one. One that does not verify, or of another version, is
// logged and ignored. It stays after it was read, so that two restarts in a row lose nothing.
//
// # Who owns what, and the locks
//
// Recorder.mu guards all of a Recorder; under it nothing is read, written, compiled or waited for.
// Warmer.mu guards which blocks are being warmed and what view is known; it is held for map
// operations alone, and never together with Recorder.mu.
package warm
