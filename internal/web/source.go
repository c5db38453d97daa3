package web

import (
	"context"
	"errors"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Blocks is where the blocks that are shown come from.
type Blocks interface {
	// Snapshot returns what is served at this moment. It is not modified.
	Snapshot() Snapshot
	// Document returns the meta.json of a block as it is in the bucket.
	Document(id ulid.ULID) ([]byte, error)
}

// Snapshot is what the process serves at one moment.
type Snapshot struct {
	// Blocks are those that are served.
	Blocks []Block
	// FromDisk is set while they are those of an earlier process, because the bucket was not seen
	// yet.
	FromDisk bool
	// SyncedAt is when the last look at the bucket began, CompleteAt the last one that saw it
	// whole; zero before the first. Err is why the last one did not.
	SyncedAt, CompleteAt time.Time
	Err                  error
	// States counts the blocks of the bucket by what became of them.
	States map[string]int
	// Broken are the blocks that cannot be served.
	Broken []Broken
}

// Block is one block. Times are milliseconds since 1970, the range is [MinTime, MaxTime).
type Block struct {
	ID               ulid.ULID
	MinTime, MaxTime int64
	// Resolution is 0 for raw samples, else the downsampling window in milliseconds.
	Resolution int64
	// Labels are the external labels.
	Labels labels.Labels
	// Level is the compaction level, Sources what the block was compacted from.
	Level   int
	Sources []ulid.ULID
	// Series, Chunks and Size (in bytes, of index and chunk files) are 0 where nobody said.
	Series, Chunks uint64
	Size           int64
	// Irregular says what was found of a block whose series are sorted in memory; "": nothing.
	Irregular string
}

// Broken is a block that cannot be served.
type Broken struct {
	ID    ulid.ULID
	State string
	Err   error
}

// Mark is a kind of mark, by the name that the API has for it.
type Mark string

const (
	MarkDeletion     Mark = "DELETION"
	MarkNoCompaction Mark = "NO_COMPACTION"
)

// Marker marks blocks in the bucket.
type Marker interface {
	// Mark marks a block. A mark of the kind that is there already stays as it is: written is false
	// then. ErrNoBlock is in the chain of the error if there is no such block.
	Mark(ctx context.Context, id ulid.ULID, kind Mark, details string) (written bool, err error)
}

// ErrNoBlock is in the chain of the error of Marker.Mark for a block that is not in the bucket.
var ErrNoBlock = errors.New("no such block in the bucket")

// Length is how much time the block covers, in milliseconds.
func (b Block) Length() int64 { return b.MaxTime - b.MinTime }

// ResolutionName is the resolution as people write it.
func (b Block) ResolutionName() string { return resolutionName(b.Resolution) }
