package store

import (
	"bytes"
	"context"
	"sync"

	"larder/store/indexheader"
	"larder/store/storepb"
)

// stringList is a list of sorted and distinct strings, encoded by storepb.AppendString.
type stringList []byte

// first returns the first n strings.
func (l stringList) first(n int) stringList {
	rest := []byte(l)
	for ; n > 0 && len(rest) > 0; n-- {
		_, rest = storepb.NextString(rest)
	}
	end := len(l) - len(rest)
	return l[:end:end]
}

// clip returns the list in an array of its own if the array that it lies in, of the given capacity,
// is much larger.
func clip(l stringList, capacity int) stringList {
	if capacity > len(l)+len(l)/8 {
		return append(make(stringList, 0, len(l)), l...)
	}
	return l
}

// unite returns the strings of both lists. The result is one of them if that has all strings,
// because blocks mostly have the same ones.
func unite(a, b stringList) stringList {
	if len(a) < len(b) {
		a, b = b, a
	}
	if bytes.Equal(a, b) {
		return a
	}
	var out stringList // nil while a has all strings of b
	copied := 0        // bytes of a that are in out
	restA, restB := []byte(a), []byte(b)
	var sa, nextA []byte
	if len(restA) > 0 {
		sa, nextA = storepb.NextString(restA)
	}
	for len(restB) > 0 {
		sb, nextB := storepb.NextString(restB)
		c := -1
		for len(restA) > 0 {
			if c = bytes.Compare(sa, sb); c >= 0 {
				break
			}
			if restA = nextA; len(restA) > 0 {
				sa, nextA = storepb.NextString(restA)
			}
		}
		if c != 0 {
			if out == nil {
				out = make(stringList, 0, len(a)+len(restB))
			}
			at := len(a) - len(restA)
			out = append(out, a[copied:at]...)
			out = append(out, restB[:len(restB)-len(nextB)]...)
			copied = at
		}
		restB = nextB
	}
	if out == nil {
		return a
	}
	return append(out, a[copied:]...)
}

// listWriter makes a list of strings that come in order, and reserves its bytes as it grows.
type listWriter struct {
	list  stringList
	bytes *labelBytes
}

// newListWriter expects a list of size bytes.
func newListWriter(bytes *labelBytes, size int64) (*listWriter, error) {
	w := &listWriter{bytes: bytes}
	return w, w.resize(int(min(max(size, 256), 1<<20)))
}

// addValues adds the values of a label of a header.
func (w *listWriter) addValues(
	ctx context.Context, h *indexheader.Header, label string,
) (err error) {
	w.list, err = h.AppendStrings(ctx, label, w.list, func(list []byte, n int) ([]byte, error) {
		w.list = list
		err := w.resize(max(len(list)+n, cap(list)+cap(list)/2))
		return w.list, err
	})
	return err
}

func (w *listWriter) resize(size int) error {
	if err := w.bytes.Reserve(int64(size)); err != nil {
		return err
	}
	w.bytes.Release(int64(cap(w.list)))
	w.list = append(make(stringList, 0, size), w.list...)
	return nil
}

// labelBytesStep is how many bytes of the allowance a label request reserves at a time.
const labelBytesStep = 64 << 10

// labelBytes shares what a label request has reserved among its blocks. It is safe for concurrent
// use.
type labelBytes struct {
	grow func(int64) error // reserves more for the request

	mu   sync.Mutex // guards free; grow is called under it
	free int64      // bytes that are reserved and not used
}

// Reserve uses n of the bytes, of which it reserves more if they do not suffice.
func (b *labelBytes) Reserve(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free < n {
		more := max(labelBytesStep, n-b.free)
		if err := b.grow(more); err != nil {
			return err
		}
		b.free += more
	}
	b.free -= n
	return nil
}

// Release ends the use of n bytes. They stay reserved for the request.
func (b *labelBytes) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
}

// union unites the lists of blocks as they come. Lists of the same size unite first, so that each
// string is compared only a few times, however many lists there are.
type union struct {
	bytes *labelBytes

	mu sync.Mutex // guards the fields below; held while lists are compared, never during a read
	// lists are those that are not united yet. INVARIANT: each is more than twice as large as the
	// next, so that together they are smaller than twice the answer.
	lists []stringList
	// shared holds the strings of blocks that have too many for lists of their own. nil: none.
	shared *stringSet

	large chan struct{} // holds an element while a large list is made
}

func newUnion(bytes *labelBytes) *union {
	return &union{bytes: bytes, large: make(chan struct{}, 1)}
}

// enter waits until no other large list is being made. The caller calls exit.
func (u *union) enter(ctx context.Context) error {
	select {
	case u.large <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *union) exit() { <-u.large }

// addKept adds a list that is kept elsewhere, too.
func (u *union) addKept(l stringList) error {
	if err := u.bytes.Reserve(int64(cap(l))); err != nil {
		return err
	}
	return u.add(l)
}

// add adds a list whose bytes are reserved. The union releases them when it unites the list.
func (u *union) add(l stringList) error {
	if len(l) == 0 {
		u.bytes.Release(int64(cap(l)))
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.lists) > 0 {
		top := u.lists[len(u.lists)-1]
		if len(top) > 2*len(l) {
			break
		}
		both, err := u.unite(top, l)
		if err != nil {
			return err
		}
		u.lists, l = u.lists[:len(u.lists)-1], both
	}
	u.lists = append(u.lists, l)
	return nil
}

// unite replaces the bytes reserved for two lists by those of their union.
func (u *union) unite(a, b stringList) (stringList, error) {
	both := unite(a, b)
	if err := u.bytes.Reserve(int64(cap(both))); err != nil {
		return nil, err
	}
	u.bytes.Release(int64(cap(a) + cap(b)))
	return both, nil
}

// share calls add with the set that blocks with very many strings share.
func (u *union) share(add func(*stringSet) error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.shared == nil {
		u.shared = newStringSet(u.bytes)
	}
	return add(u.shared)
}

// all returns the strings of all lists. Nothing may be added afterwards.
func (u *union) all() (out stringList, err error) {
	if set := u.shared; set != nil {
		if err := u.add(set.finish()); err != nil {
			return nil, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := len(u.lists) - 1; i >= 0; i-- {
		if out == nil {
			out = u.lists[i]
		} else if out, err = u.unite(u.lists[i], out); err != nil {
			return nil, err
		}
	}
	if cap(out) > len(out)+len(out)/8 {
		if err := u.bytes.Reserve(int64(len(out))); err != nil {
			return nil, err
		}
		u.bytes.Release(int64(cap(out)))
		out = clip(out, cap(out))
	}
	return out, nil
}
