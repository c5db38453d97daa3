package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/postings"
	"larder/store/storepb"
)

// question is what a label request asks each block for.
type question interface {
	// appendKey appends what distinguishes the question from others of the same matchers.
	appendKey(dst []byte) []byte
	// hints returns the full name of the message of the answer's hints.
	hints() string
	// matchers returns the matchers that the series of a block must match.
	matchers(a *labelBlock) []*labels.Matcher
	// expect estimates how many strings the answer of a block has and how long they are, given its
	// header and an upper bound of its matching series.
	expect(ctx context.Context, h *indexheader.Header, series int) (count, length int)
	// header returns the answer of the header of a block. Its bytes are reserved.
	header(ctx context.Context, a *labelBlock, bytes *labelBytes) (stringList, error)
	// collect says what the series of a block are asked for.
	collect(meta *catalog.Block) block.Collect
	// segment adds the strings of the series of a segment. more says whether further series may add
	// strings.
	segment(meta *catalog.Block, seg *block.Segment, out *stringSet) (more bool, err error)
	// fault words an error of a header.
	fault(meta *catalog.Block, err error) error
}

// guessedLabel is the expected length of a label name or value where no sample is taken.
const guessedLabel = 32

// namesQuestion asks for label names.
type namesQuestion struct{ query *labelQuery }

func (n *namesQuestion) appendKey(dst []byte) []byte { return append(dst, 'n') }

func (n *namesQuestion) hints() string { return "hintspb.LabelNamesResponseHints" }

func (n *namesQuestion) matchers(a *labelBlock) []*labels.Matcher { return a.matchers }

func (n *namesQuestion) expect(
	_ context.Context, h *indexheader.Header, _ int,
) (count, length int) {
	return len(h.LabelNames()), guessedLabel
}

func (n *namesQuestion) fault(meta *catalog.Block, err error) error {
	return fmt.Errorf("label names for block %s: %w", meta.ID, err)
}

// header returns the label names of a block and of its external labels. Same as in Thanos, removed
// replica labels are missing only if they are external.
func (n *namesQuestion) header(
	_ context.Context, a *labelBlock, bytes *labelBytes,
) (stringList, error) {
	names := slices.Clone(a.header.LabelNames())
	dropLabels(a.meta.Labels, n.query.without).Range(func(l labels.Label) {
		names = append(names, l.Name)
	})
	slices.Sort(names)
	size := 0
	for _, name := range names {
		size += storepb.StringSize(len(name))
	}
	if err := bytes.Reserve(int64(size)); err != nil {
		return nil, n.fault(a.meta, err)
	}
	out := make(stringList, 0, size)
	for _, name := range slices.Compact(names) {
		out = storepb.AppendString(out, name)
	}
	return out, nil
}

func (n *namesQuestion) collect(*catalog.Block) block.Collect { return block.Collect{Names: true} }

func (n *namesQuestion) segment(
	meta *catalog.Block, seg *block.Segment, out *stringSet,
) (bool, error) {
	for i := range seg.Len() {
		for b := seg.Labels(i); ; {
			name, _, rest, ok := storepb.NextLabel(b)
			if !ok {
				break
			}
			if err := out.add(name); err != nil {
				return false, n.fault(meta, err)
			}
			b = rest
		}
	}
	return true, nil
}

// valuesQuestion asks for the values of a label.
type valuesQuestion struct {
	query *labelQuery
	label string
}

func (v *valuesQuestion) appendKey(dst []byte) []byte {
	return postings.AppendNames(append(dst, 'v'), []string{v.label})
}

func (v *valuesQuestion) hints() string { return "hintspb.LabelValuesResponseHints" }

func (v *valuesQuestion) matchers(a *labelBlock) []*labels.Matcher {
	named := slices.ContainsFunc(v.query.matchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
	if named || a.meta.Labels.Has(v.label) {
		return a.matchers
	}
	// Only series that have the label matter. With a metric's name given this excludes too little
	// to be worth its postings.
	return append(
		slices.Clone(a.matchers), labels.MustNewMatcher(labels.MatchNotEqual, v.label, ""),
	)
}

// sampledValues is how many values tell how long the others are.
const sampledValues = 512

func (v *valuesQuestion) expect(
	ctx context.Context, h *indexheader.Header, series int,
) (count, length int) {
	count = min(h.ValueCount(v.label), series)
	if count <= sampledValues {
		return count, guessedLabel
	}
	n, bytes := 0, 0
	err := h.Values(ctx, v.label, "", func(value []byte, _ indexheader.List) (bool, error) {
		n++
		bytes += len(value)
		return n < sampledValues, nil
	})
	if err != nil || n == 0 {
		// The caller that reads the values gets the same error.
		return count, guessedLabel
	}
	mean := bytes/n + 1
	return count, mean + mean/16
}

func (v *valuesQuestion) fault(meta *catalog.Block, err error) error {
	return fmt.Errorf("index header label values for block %s: %w", meta.ID, err)
}

// header returns the values of the label in a block, its external value included.
func (v *valuesQuestion) header(
	ctx context.Context, a *labelBlock, bytes *labelBytes,
) (stringList, error) {
	if v.label == "" {
		// The index lists all postings under the empty name. Same as Thanos, larder answers with
		// its one value.
		list := storepb.AppendString(stringList(nil), "")
		return list, bytes.Reserve(int64(cap(list)))
	}
	w, err := newListWriter(bytes, a.size/listsOfHeader)
	if err == nil {
		err = w.addValues(ctx, a.header, v.label)
	}
	if err != nil {
		return nil, v.fault(a.meta, err)
	}
	if value := a.meta.Labels.Get(v.label); value != "" {
		list := unite(w.list, storepb.AppendString(stringList(nil), value))
		err := bytes.Reserve(int64(cap(list)))
		bytes.Release(int64(cap(w.list)))
		return list, err
	}
	return w.list, nil
}

func (v *valuesQuestion) collect(meta *catalog.Block) block.Collect {
	if meta.Labels.Has(v.label) {
		return block.Collect{} // the first series has the value
	}
	return block.Collect{Label: v.label}
}

func (v *valuesQuestion) segment(
	meta *catalog.Block, seg *block.Segment, out *stringSet,
) (bool, error) {
	external := meta.Labels.Has(v.label)
	for i := range seg.Len() {
		for b := seg.Labels(i); ; {
			name, value, rest, ok := storepb.NextLabel(b)
			if !ok {
				break
			}
			if string(name) == v.label {
				if len(value) > 0 {
					if err := out.add(value); err != nil {
						return false, v.fault(meta, err)
					}
				}
				break
			}
			b = rest
		}
		if external {
			// An external label has one value, which every series of the block has.
			return false, nil
		}
	}
	return true, nil
}
