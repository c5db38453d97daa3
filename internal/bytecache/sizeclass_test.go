package bytecache

import "testing"

// TestSizeClassesAreTheAllocators: append returns all of the memory that it allocates, and thus
// shows to which size the allocator rounds up.
func TestSizeClassesAreTheAllocators(t *testing.T) {
	c := newSizeClasses()
	f := func(n int) {
		t.Helper()
		want := int64(cap(append([]byte(nil), make([]byte, n)...)))
		if got := c.round(int64(n)); got != want {
			t.Errorf("%d bytes: got %d, want %d", n, got, want)
		}
	}
	f(0)
	for _, class := range c {
		f(int(class) - 1)
		f(int(class))
		f(int(class) + 1)
	}
	for n := range 2_000 {
		f(1 + 101*n)
	}
	f(4 << 20)
	f(4<<20 + 1)
}
