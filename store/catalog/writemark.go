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

// MarkKind is a mark that somebody can set on a block.
type MarkKind int

const (
	// MarkDeletion has the compactor delete the block after its delete delay, and stores leave it
	// out before that.
	MarkDeletion MarkKind = iota
	// MarkNoCompaction has the compactor leave the block alone.
	MarkNoCompaction
)

// MarkBucket is what WriteMark needs of an object store.
type MarkBucket interface {
	Exists(ctx context.Context, name string) (bool, error)
	Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error
}

// ErrNoBlock is in the chain of WriteMark's error when the bucket has no such block.
var ErrNoBlock = errors.New("no such block in the bucket")

// WriteMark marks a block in the format of Thanos's components, version 1. A mark that is there
// already stays as it is: written is false then. It is the only thing in larder that writes to the
// bucket, and nothing calls it unless the user allowed it.
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
	// A mark without a block would make a folder that every sync takes for a partial upload.
	if ok, err := bucket.Exists(ctx, id.String()+"/"+metaFile); err != nil {
		return false, fmt.Errorf("look for block %s: %w", id, err)
	} else if !ok {
		return false, fmt.Errorf("%s: %w", id, ErrNoBlock)
	}
	name = id.String() + "/" + name
	if ok, err := bucket.Exists(ctx, name); err != nil {
		return false, fmt.Errorf("look for %s: %w", name, err)
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
