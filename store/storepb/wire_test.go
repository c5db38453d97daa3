package storepb

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestWireContract compares every message, enum and service with a listing generated from the
// .proto files of Thanos.
func TestWireContract(t *testing.T) {
	want, err := os.ReadFile("testdata/wire.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), describe(protoregistry.GlobalFiles)); diff != "" {
		t.Errorf("wire format differs from that of Thanos (-want +got):\n%s", diff)
	}
}

// describe lists the wire format, one line per field, enum value and method.
func describe(files *protoregistry.Files) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	enums := func(eds protoreflect.EnumDescriptors) {
		for i := range eds.Len() {
			for j := range eds.Get(i).Values().Len() {
				v := eds.Get(i).Values().Get(j)
				add("enum %s %s = %d", eds.Get(i).FullName(), v.Name(), v.Number())
			}
		}
	}
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		switch fd.Package() {
		case "thanos", "thanos.info", "hintspb":
		default:
			return true
		}
		enums(fd.Enums())
		for i := range fd.Messages().Len() {
			md := fd.Messages().Get(i)
			enums(md.Enums())
			add("message %s", md.FullName())
			for j := range md.Fields().Len() {
				f := md.Fields().Get(j)
				kind := f.Kind().String()
				if m := f.Message(); m != nil {
					kind = string(m.FullName())
				}
				if e := f.Enum(); e != nil {
					kind = string(e.FullName())
				}
				oneof := ""
				if o := f.ContainingOneof(); o != nil {
					oneof = " in " + string(o.Name())
				}
				add("message %s %s %s %s = %d%s", md.FullName(), f.Cardinality(), kind, f.Name(),
					f.Number(), oneof)
			}
		}
		for i := range fd.Services().Len() {
			sd := fd.Services().Get(i)
			for j := range sd.Methods().Len() {
				m := sd.Methods().Get(j)
				add(
					"service %s %s(%s) %s client stream %v, server stream %v",
					sd.FullName(),
					m.Name(),
					m.Input().
						FullName(),
					m.Output().FullName(),
					m.IsStreamingClient(),
					m.IsStreamingServer(),
				)
			}
		}
		return true
	})
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}
