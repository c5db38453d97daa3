package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxFileCalls is more than the reads of a bucket that run at once, so that only calls that do
	// not return take all places.
	maxFileCalls = 128
	// maxFileWait is how long a call waits for a place: less than a read waits for an answer, so
	// that its error says why there is none.
	maxFileWait = 5 * time.Second
)

// errFilesHang is in the chain of the error of a call that got no place.
var errFilesHang = errors.New("the file system does not answer")

// filePlaces bound the calls to a file system that run at once. A call that hangs, as on a network
// file system whose server is gone, cannot be ended: it keeps a thread of the process although its
// caller has given up. INVARIANT: no more threads than there are places wait in such calls.
type filePlaces struct {
	root string
	free chan struct{}
}

func newFilePlaces(root string, n int) *filePlaces {
	return &filePlaces{root: root, free: make(chan struct{}, n)}
}

// do runs a call that may wait for the disk. Without a place it fails, and says what it was for.
func (p *filePlaces) do(ctx context.Context, what string, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case p.free <- struct{}{}:
	default:
		timer := time.NewTimer(maxFileWait)
		defer timer.Stop()
		select {
		case p.free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return fmt.Errorf("%s: %w: %d calls below %s have not returned (look at the disk or the mount)",
				what, errFilesHang, cap(p.free), p.root)
		}
	}
	defer func() { <-p.free }()
	return call()
}
