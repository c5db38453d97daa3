package web

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Blocks provides the blocks to show.
type Blocks interface {
	// Snapshot returns the blocks that are served now. The caller must not modify it.
	Snapshot() Snapshot
	// Document returns the meta.json of a block, as stored in the bucket.
	Document(id ulid.ULID) ([]byte, error)
}

// Snapshot is the state of the catalog at one moment.
type Snapshot struct {
	// Blocks are the blocks that are served.
	Blocks []Block
	// FromDisk reports that Blocks come from the data directory, because the bucket has not been
	// read yet.
	FromDisk bool
	// SyncedAt is when the last sync began, CompleteAt when the last complete sync began. They are
	// zero before the first. Err is the error of the last sync, nil if it was complete.
	SyncedAt, CompleteAt time.Time
	Err                  error
	// States counts the blocks of the bucket by state.
	States map[string]int
	// Broken are the blocks that cannot be served.
	Broken []Broken
	// Excluded are blocks that are not served for another reason.
	Excluded []Excluded
}

// Excluded is a block that is left out on purpose. By replaces it, unless it is zero.
type Excluded struct {
	Block
	State string
	By    ulid.ULID
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
	// Series and Chunks are counts, Size is the bytes of index and chunk files. 0 is unknown.
	Series, Chunks uint64
	Size           int64
	// Irregular says why the series of the block are sorted in memory. It is empty if they are not.
	Irregular string
}

// Broken is a block that cannot be served.
type Broken struct {
	ID    ulid.ULID
	State string
	Err   error
}

// maxNamed bounds the damaged blocks that pages name at their top.
const maxNamed = 3

// damaged returns the first damaged blocks, and the number of all. Blocks without a meta.json are
// not among them: they are being uploaded or deleted.
func (s *Snapshot) damaged() (first []Broken, all int) {
	for _, b := range s.Broken {
		if b.State == "no-meta-json" {
			continue
		}
		if all++; len(first) < maxNamed {
			first = append(first, b)
		}
	}
	return first, all
}

// Damage says in a sentence what is wrong with a damaged block.
func (b Broken) Damage() string {
	return fmt.Sprintf("Block %s is damaged and not served: %s.", b.ID,
		strings.TrimPrefix(stateTitle(b.State), "damaged: "))
}

// Mark is a kind of mark, by its name in the API.
type Mark string

// The marks that the API can write.
const (
	MarkDeletion     Mark = "DELETION"
	MarkNoCompaction Mark = "NO_COMPACTION"
)

// Marker marks blocks in the bucket.
type Marker interface {
	// Mark marks a block. It keeps an existing mark of the same kind, and written is false then.
	// The error wraps ErrNoBlock if the bucket has no such block.
	Mark(ctx context.Context, id ulid.ULID, kind Mark, details string) (written bool, err error)
}

// ErrNoBlock is the error of Marker.Mark for a block that is not in the bucket.
var ErrNoBlock = errors.New("no such block in the bucket")

// Length returns the length of the block's time range, in milliseconds.
func (b Block) Length() int64 { return b.MaxTime - b.MinTime }

// ResolutionName formats the resolution: "raw" or the downsampling window.
func (b Block) ResolutionName() string { return resolutionName(b.Resolution) }
