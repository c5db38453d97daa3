package memcached

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"larder/internal/memcached/memcachedtest"
)

func idOf(s string) ID { return sha256.Sum256([]byte(s)) }

// client returns a client of the servers that is closed when the test ends.
func client(t testing.TB, o Options, servers ...*memcachedtest.Server) *Client {
	t.Helper()
	for _, s := range servers {
		o.Addresses = append(o.Addresses, s.Addr)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestValuesComeBack(t *testing.T) {
	servers := []*memcachedtest.Server{memcachedtest.Start(t, memcachedtest.Options{}), memcachedtest.Start(t, memcachedtest.Options{})}
	writer := client(t, Options{Name: "writer"}, servers...)
	var ids []ID
	want := map[ID][]byte{}
	for i := range 1000 {
		id := idOf(fmt.Sprint(i))
		ids = append(ids, id)
		if i%10 != 0 {
			want[id] = bytes.Repeat([]byte{byte(i)}, i)
			writer.Set(id, want[id])
		}
	}
	check := func(c *Client) {
		t.Helper()
		values := make([][]byte, len(ids))
		c.GetMulti(t.Context(), ids, values)
		for i, v := range values {
			if w := want[ids[i]]; !bytes.Equal(v, w) || (v == nil) != (w == nil) {
				t.Fatalf("value %d: got %d bytes (nil: %v), want %d", i, len(v), v == nil, len(w))
			}
		}
	}
	check(writer)
	writer.Close()
	reader := client(t, Options{Name: "reader"}, servers...)
	check(reader)
	if st := reader.Stats(); st.Hits != 900 || st.Requests != 1000 {
		t.Errorf("got %+v", st)
	}
}
