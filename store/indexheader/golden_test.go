package indexheader

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"larder/internal/localfs"
)

// The header of a fixed index always has the same bytes. A change of the layout needs a higher
// formatVersion, new golden files and a change of docs/format.md.
func TestGoldenHeader(t *testing.T) {
	for _, name := range []string{"golden", "golden-v1"} {
		idx, err := os.ReadFile("testdata/" + name + ".index")
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile("testdata/" + name + ".header")
		if err != nil {
			t.Fatal(err)
		}
		if got := headerBytes(t, idx); !bytes.Equal(got, want) {
			t.Errorf("%s: the header is\n%swant\n%s", name, hex.Dump(got), hex.Dump(want))
		}
		// The golden file is read correctly.
		dir := t.TempDir()
		bkt := newBucket()
		src := bkt.add(1, idx)
		if err := os.WriteFile(headerFile(dir, src.ID), want, 0o666); err != nil {
			t.Fatal(err)
		}
		h := acquire(t, newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt}), src)
		if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := bkt.count(); n != 0 {
			t.Errorf("%s: %d reads of the bucket", name, n)
		}
	}
}

// docs/format.md has all bytes of the golden file, in order.
func TestGoldenHeaderIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/golden.header")
	if err != nil {
		t.Fatal(err)
	}
	_, dump, ok := strings.Cut(string(doc), "```golden\n")
	dump, _, ok2 := strings.Cut(dump, "```")
	if !ok || !ok2 {
		t.Fatal("docs/format.md has no golden bytes")
	}
	line := regexp.MustCompile(`^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)(?:  .*)?$`)
	var got []byte
	for l := range strings.Lines(dump) {
		l = strings.TrimRight(l, "\n")
		if strings.HasPrefix(l, "          -- ") {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("line %q", l)
		}
		if at := fmt.Sprintf("%08x", len(got)); m[1] != at {
			t.Fatalf("line %q is at %s", l, at)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(m[2], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("documented are\n%sthe file has\n%s", hex.Dump(got), hex.Dump(want))
	}
	// The figures in the text.
	for _, s := range []string{
		fmt.Sprintf("Format version: **%d**", formatVersion),
		fmt.Sprintf("at most %d KiB", maxBlock>>10),
		fmt.Sprintf("Every %dth entry is a restart", restartInterval),
		fmt.Sprintf("head <%db>", headSize), fmt.Sprintf("footer <%db>", footerSize),
		fmt.Sprintf("The last %d bytes", tailSize), magic,
	} {
		if !strings.Contains(string(doc), s) {
			t.Errorf("docs/format.md does not say %q", s)
		}
	}
}
