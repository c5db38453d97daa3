package memcached

import (
	"bytes"
	"testing"
)

func TestEnvelopeBits(t *testing.T) {
	id := idOf("a")
	sealed := appendEnvelope(nil, &id, []byte("payload"))
	if got, fault := openEnvelope(sealed, &id); fault != "" || string(got) != "payload" {
		t.Fatalf("got %q, %q", got, fault)
	}
	for bit := range 8 * len(sealed) {
		b := bytes.Clone(sealed)
		b[bit/8] ^= 1 << (bit % 8)
		if _, fault := openEnvelope(b, &id); fault == "" {
			t.Errorf("bit %d can be flipped", bit)
		}
	}
	for n := range sealed {
		if _, fault := openEnvelope(sealed[:n], &id); fault == "" {
			t.Errorf("%d of %d bytes are enough", n, len(sealed))
		}
	}
	other := idOf("b")
	if _, fault := openEnvelope(sealed, &other); fault != faultIdentity {
		t.Errorf("opened the value of another ID: %q", fault)
	}
}

// FuzzEnvelope: a value opens only if it was sealed, byte for byte.
func FuzzEnvelope(f *testing.F) {
	id := idOf("a")
	f.Add(appendEnvelope(nil, &id, []byte("payload")), id[:])
	f.Add([]byte{envelopeVersion}, id[:])
	f.Fuzz(func(t *testing.T, b, rawID []byte) {
		var id ID
		copy(id[:], rawID)
		payload, fault := openEnvelope(b, &id)
		if fault == "" && !bytes.Equal(appendEnvelope(nil, &id, payload), b) {
			t.Fatalf("%x opens, but was not sealed like this", b)
		}
		if got, fault := openEnvelope(appendEnvelope(nil, &id, b), &id); fault != "" ||
			!bytes.Equal(got, b) {
			t.Fatalf("%x does not come back: %q", b, fault)
		}
	})
}
