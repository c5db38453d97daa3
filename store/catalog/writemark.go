package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

// MarkKind is a kind of mark on a block.
type MarkKind int

const (
	// MarkDeletion makes the compactor delete the block after its delete delay. Stores stop serving
	// it before that.
	MarkDeletion MarkKind = iota
	// MarkNoCompaction excludes the block from compaction.
	MarkNoCompaction
)

// MarkBucket is the part of an object store that WriteMark uses.
type MarkBucket interface {
	Exists(ctx context.Context, name string) (bool, error)
	Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error
}

// ErrNoBlock is in the chain of WriteMark's error when the bucket has no such block.
var ErrNoBlock = errors.New("no such block in the bucket")

// WriteMark marks a block in the format of Thanos's components, version 1. If the mark exists, it
// stays unchanged and written is false. WriteMark is the only function of larder that writes to the
// bucket. It is called only if the user has allowed that.
func WriteMark(
	ctx context.Context, bucket MarkBucket, id ulid.ULID, kind MarkKind, details string,
	now time.Time,
) (written bool, err error) {
	name, content := markFile, any(struct {
		ID           ulid.ULID `json:"id"`
		Version      int       `json:"version"`
		Details      string    `json:"details,omitempty"`
		DeletionTime int64     `json:"deletion_time"`
	}{id, 1, details, now.Unix()})
	if kind == MarkNoCompaction {
		name, content = noCompactFile, struct {
			ID            ulid.ULID `json:"id"`
			Version       int       `json:"version"`
			Details       string    `json:"details,omitempty"`
			NoCompactTime int64     `json:"no_compact_time"`
			Reason        string    `json:"reason"`
		}{id, 1, details, now.Unix(), "manual"}
	}
	// Every sync would regard a folder with only a mark as a partial upload.
	if ok, err := bucket.Exists(ctx, id.String()+"/"+metaFile); err != nil {
		return false, fmt.Errorf("find block %s: %w", id, err)
	} else if !ok {
		return false, fmt.Errorf("%s: %w", id, ErrNoBlock)
	}
	name = id.String() + "/" + name
	if ok, err := bucket.Exists(ctx, name); err != nil {
		return false, fmt.Errorf("find %s: %w", name, err)
	} else if ok {
		return false, nil
	}
	data, err := json.Marshal(content)
	if err != nil {
		return false, err
	}
	if err := bucket.Upload(ctx, name, bytes.NewReader(data)); err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	return true, nil
}
