package block

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// nameRules say which labels the final label sets of a stream take from the block and where the external labels go.
type nameRules struct {
	external []extLabel // sorted by name
	dropped  []string   // sorted: names that are not taken from the block, external ones excluded
	clash    bool       // an external or dropped name occurs in the block: index order is not final order
}

// extLabel is an external label and its finished bytes.
type extLabel struct {
	name    string
	encoded []byte
}

func newNameRules(blockNames []string, external labels.Labels, dropped []string) nameRules {
	var r nameRules
	has := func(name string) bool {
		_, ok := slices.BinarySearch(blockNames, name)
		return ok
	}
	external.Range(func(l labels.Label) {
		r.external = append(r.external, extLabel{name: l.Name, encoded: storepb.AppendLabel(nil, l.Name, l.Value)})
		r.clash = r.clash || has(l.Name)
	})
	r.dropped = slices.Sorted(slices.Values(dropped))
	for _, name := range r.dropped {
		r.clash = r.clash || has(name)
	}
	return r
}

// largest returns the largest external name, nil if there is none or if order is restored by sorting anyway.
func (r *nameRules) largest() []byte {
	if r.clash || len(r.external) == 0 {
		return nil
	}
	return []byte(r.external[len(r.external)-1].name)
}

func (r *nameRules) class(name []byte) nameClass {
	if _, drop := slices.BinarySearch(r.dropped, string(name)); drop {
		return nameDropped
	}
	n := 0
	for ; n < len(r.external) && r.external[n].name <= string(name); n++ {
		if r.external[n].name == string(name) {
			return nameDropped
		}
	}
	return nameClass(n)
}

// layout writes the final labels of series as finished protobuf bytes.
type layout struct {
	rules *nameRules
	prev  []uint32 // the slots of the series written last
	ends  []uint32 // by label of prev: where its bytes end, relative to the series' begin
}

// segment lays out the series of raw in the given order.
func (l *layout) segment(raw *rawSeries, syms *symbols, order []uint32, keep func([]byte) bool, withChunks bool) *Segment {
	seg := &Segment{}
	l.prev, l.ends = l.prev[:0], l.ends[:0]
	if keep == nil {
		// All series stay: one allocation for each array. What is left of a shard grows as it comes, so as not to hold room for the whole.
		seg.labelEnd, seg.chunkEnd = make([]uint32, 0, len(order)), make([]uint32, 0, len(order))
		if withChunks {
			n := raw.chunks.Len()
			seg.chunks = tsdbfmt.ChunkMetas{Ref: make([]uint64, 0, n), Min: make([]int64, 0, n), Max: make([]int64, 0, n), Bound: make([]uint32, 0, n)}
		}
		seg.labels = make([]byte, 0, l.guess(raw, syms, order))
	}
	begin := 0
	for _, i := range order {
		seg.labels = l.appendSeries(seg.labels, begin, raw.labels(int(i)), syms)
		if keep != nil && !keep(seg.labels[begin:]) {
			// What was written stays as the prefix that the next series may share, up to begin.
			seg.labels = seg.labels[:begin]
			l.prev = l.prev[:0]
			continue
		}
		begin = len(seg.labels)
		seg.labelEnd = append(seg.labelEnd, uint32(begin))
		if withChunks {
			lo, hi := raw.chunkRange(int(i))
			seg.chunks.AppendRange(&raw.chunks, lo, hi)
		}
		seg.chunkEnd = append(seg.chunkEnd, uint32(seg.chunks.Len()))
	}
	return seg
}

// guess returns how many bytes the final labels of the given series take, judged by some of them: series of a segment are much alike.
func (l *layout) guess(raw *rawSeries, syms *symbols, order []uint32) int {
	const samples = 16
	const perLabel = 6 // tags and lengths
	external := 0
	for _, e := range l.rules.external {
		external += len(e.encoded)
	}
	bytes, n := 0, 0
	for k := 0; k < len(order); k += len(order)/samples + 1 {
		slots := raw.labels(int(order[k]))
		for _, s := range slots {
			bytes += int(syms.size[s])
		}
		bytes += perLabel*len(slots)/2 + external
		n++
	}
	if n == 0 {
		return 0
	}
	mean := bytes/n + 1
	return len(order) * (mean + mean/16)
}

// appendSeries appends the final labels of a series with the given slots to dst, of which it is to begin at begin. The bytes of
// leading labels that the previous series, which ends at begin, has too are copied from there.
func (l *layout) appendSeries(dst []byte, begin int, slots []uint32, syms *symbols) []byte {
	shared := 0
	for shared < len(l.prev) && shared < len(slots) && l.prev[shared] == slots[shared] {
		shared++
	}
	shared /= 2
	if shared > 0 {
		prevBegin := begin - int(l.ends[len(l.ends)-1])
		dst = append(dst, dst[prevBegin:prevBegin+int(l.ends[shared-1])]...)
	}
	l.ends = l.ends[:min(shared, len(l.ends))]
	written := 0 // external labels
	for i := shared; i > 0; i-- {
		if c := syms.names[slots[2*(i-1)]]; c >= 0 {
			written = int(c)
			break
		}
	}
	for i := 2 * shared; i < len(slots); i += 2 {
		name := slots[i]
		class := syms.names[name]
		if class == nameUnknown {
			class = l.rules.class(syms.at(name))
			syms.names[name] = class
		}
		if class != nameDropped {
			for ; written < int(class); written++ {
				dst = append(dst, l.rules.external[written].encoded...)
			}
			dst = storepb.AppendLabel(dst, syms.at(name), syms.at(slots[i+1]))
		}
		l.ends = append(l.ends, uint32(len(dst)-begin))
	}
	for _, e := range l.rules.external[written:] {
		dst = append(dst, e.encoded...)
	}
	// The last end is that of the whole series, external labels behind the last label included: it tells where the series began.
	l.ends = append(l.ends, uint32(len(dst)-begin))
	l.prev = append(l.prev[:0], slots...)
	return dst
}
