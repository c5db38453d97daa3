package bucket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxFileCalls is larger than the number of concurrent reads of a bucket, so that only calls
	// that do not return can use up all places.
	maxFileCalls = 128
	// maxHanging is the number of calls for one object that may run for longer than hangsAfter, so
	// that one object that cannot be read does not use up the places of all others.
	maxHanging = 4
	hangsAfter = 10 * time.Second
	// maxFileWait is how long a call waits for a place. It is shorter than a read waits for an
	// answer, so that its error names the reason.
	maxFileWait = 5 * time.Second
)

// errFilesHang is in the chain of the error of a call that got no place.
var errFilesHang = errors.New("the file system does not answer")

// filePlaces bounds the concurrent calls to a file system. A call that hangs, as on a network file
// system without its server, cannot be ended: it keeps a thread of the process after its caller has
// failed. INVARIANT: no more threads than there are places wait in such calls.
type filePlaces struct {
	root string
	free chan struct{}

	mu      sync.Mutex
	running map[string][]time.Time // start times of running calls, by object
}

func newFilePlaces(root string, n int) *filePlaces {
	return &filePlaces{root: root, free: make(chan struct{}, n), running: map[string][]time.Time{}}
}

// do runs a call for an object that may wait for the disk. Without a place it fails, and its error
// names the operation and the object.
func (p *filePlaces) do(ctx context.Context, what, object string, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n := p.hanging(object); n >= maxHanging {
		return p.refuse(what, object, n, "it")
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
			return p.refuse(what, object, cap(p.free), "objects")
		}
	}
	defer func() { <-p.free }()
	defer p.ends(object, p.begins(object))
	return call()
}

// hanging counts the calls for an object that have run for too long.
func (p *filePlaces) hanging(object string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, began := range p.running[object] {
		if time.Since(began) >= hangsAfter {
			n++
		}
	}
	return n
}

func (p *filePlaces) begins(object string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.running[object] = append(p.running[object], now)
	return now
}

func (p *filePlaces) ends(object string, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.running[object]
	if len(calls) == 1 {
		delete(p.running, object)
		return
	}
	i := slices.Index(calls, began)
	p.running[object] = slices.Delete(calls, i, i+1)
}

func (p *filePlaces) refuse(what, object string, n int, of string) error {
	return fmt.Errorf(
		"%s %s: %w: %d calls for %s below %s have not returned (look at the disk or the mount)",
		what, object, errFilesHang, n, of, p.root)
}
