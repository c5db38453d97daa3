package storepb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/google/go-cmp/cmp"
)

// TestLabelAnswersAreMessages shows that AppendString and AppendLabelHints write what proto.Marshal
// writes.
func TestLabelAnswersAreMessages(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range 200 {
		var values, ids []string
		for range rng.IntN(20) {
			values = append(values, strings.Repeat("v", rng.IntN(3)*rng.IntN(200)))
		}
		blocks := &LabelValuesResponseHints{}
		for i := range rng.IntN(20) {
			ids = append(ids, fmt.Sprintf("%026d", i))
			blocks.QueriedBlocks = append(blocks.QueriedBlocks, &Block{Id: ids[i]})
		}
		hints, err := anypb.New(blocks)
		if err != nil {
			t.Fatal(err)
		}
		want := &LabelValuesResponse{Values: values, Hints: hints}
		var wire []byte
		size := 0
		for _, v := range values {
			wire = AppendString(wire, v)
			size += StringSize(len(v))
		}
		if size != len(wire) {
			t.Errorf("%d: StringSize says %d bytes, AppendString wrote %d", n, size, len(wire))
		}
		var back []string
		for rest := wire; len(rest) > 0; {
			var s []byte
			s, rest = NextString(rest)
			back = append(back, string(s))
		}
		if !slices.Equal(back, values) {
			t.Errorf("%d: NextString returned %q, want %q", n, back, values)
		}
		wire = AppendLabelHints(wire, "hintspb.LabelValuesResponseHints", ids)
		got := &LabelValuesResponse{}
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%d: (-want +got)\n%s", n, diff)
		}
		marshalled, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(marshalled, wire) {
			t.Errorf("%d: %x is not what proto.Marshal writes: %x", n, wire, marshalled)
		}
	}
}
