package retry

import (
	"context"
	"errors"
	"time"

	"github.com/thanos-io/objstore"
)

// listing is the progress of a listing.
type listing struct {
	last    string // the last delivered name
	some    bool   // a name has been delivered
	jumbled bool   // the names did not ascend
}

// callerError marks an error of the caller's function.
type callerError struct{ error }

// list calls f with each entry that the client lists. f runs on the caller's goroutine.
func (b *Bucket) list(t *tries, f func(objstore.IterObjectAttributes) error,
	iter func(context.Context, func(objstore.IterObjectAttributes) error) error) error {
	var l listing
	for {
		err := b.listOnce(t, &l, f, iter)
		if err == nil {
			t.answered()
			t.succeeded()
			return nil
		}
		var own callerError
		if errors.As(err, &own) {
			return own.error
		}
		if l.jumbled {
			return err // delivered names cannot be told from others
		}
		if err := t.againFor(b.listReasonOf(err), err, 0); err != nil {
			return err
		}
	}
}

// listOnce lists with one call of the client, and skips the names that earlier calls delivered.
func (b *Bucket) listOnce(t *tries, l *listing, f func(objstore.IterObjectAttributes) error,
	iter func(context.Context, func(objstore.IterObjectAttributes) error) error) error {
	// Some clients continue to list until the context ends.
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	names := make(chan objstore.IterObjectAttributes)
	result := make(chan error, 1)
	go func() {
		result <- b.contained(t.object, 0, func() error {
			return iter(ctx, func(o objstore.IterObjectAttributes) error {
				select {
				case names <- o:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}()
	seen, last := l.some, l.last
	before := "" // the last skipped name
	limit, stalled := b.opts.FirstByte, errNoAnswer
	timer := time.NewTimer(t.patience(limit))
	defer timer.Stop()
	for {
		select {
		case o := <-names:
			limit, stalled = b.opts.Stall, errStalled
			if seen && o.Name <= last {
				if o.Name <= before {
					l.jumbled = true
					return errJumbled
				}
				before = o.Name
				timer.Reset(t.patience(limit))
				continue
			}
			l.jumbled = l.jumbled || l.some && o.Name <= l.last
			l.last, l.some = o.Name, true
			if err := f(o); err != nil {
				return callerError{err}
			}
			t.progressed()
			timer.Reset(t.patience(limit))
		case err := <-result:
			return err
		case <-timer.C:
			return stalled
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
	}
}
