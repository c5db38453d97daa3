package yamldoc

import "testing"

func TestNearest(t *testing.T) {
	f := func(typed, want string, known ...string) {
		t.Helper()
		if got := Nearest(typed, known); got != want {
			t.Errorf("%q among %q: got %q, want %q", typed, known, got, want)
		}
	}
	f("bukcet", "bucket", "endpoint", "bucket", "region")
	f("max_sise", "max_size", "max_item_size", "max_size")
	f("accesskey", "access_key", "access_key", "secret_key")
	f("Bucket", "bucket", "bucket")
	f("colour", "", "bucket", "endpoint", "region")
	f("", "", "a", "bucket")
	f("ab", "ba", "cd", "ba")
	f("x", "", "bucket")
}
