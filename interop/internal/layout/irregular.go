package layout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/thanos/pkg/compact/downsample"

	"larder/interop/internal/rawindex"
)

// Irregularity is a violation of the index format that writers in the field have produced. Every
// checksum of such an index is valid.
type Irregularity string

const (
	UnorderedLabels Irregularity = "unordered labels"
	RepeatedNames   Irregularity = "repeated label names"
	EmptyValues     Irregularity = "empty label values"
	UnorderedSeries Irregularity = "unordered series"
	RepeatedSeries  Irregularity = "repeated series"
	UnorderedChunks Irregularity = "unordered chunks"
)

// Irregularities are all irregularities.
var Irregularities = []Irregularity{
	UnorderedLabels, RepeatedNames, EmptyValues, UnorderedSeries, RepeatedSeries, UnorderedChunks,
}

// Normal returns the label set that a stored series stands for: the last pair of each name, without
// empty values, sorted by name.
func Normal(stored []labels.Label) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, l := range stored {
		b.Set(l.Name, l.Value)
	}
	return b.Labels()
}

// irregular chooses what is wrong with the index of each block of an irregular layout. About half
// of the blocks stay regular, because larder merges both kinds into one answer.
func irregular(r *rand.Rand) []Irregularity {
	if r.IntN(2) == 0 {
		return nil
	}
	var out []Irregularity
	for _, k := range Irregularities {
		if r.IntN(3) == 0 {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		out = append(out, pick1(r, Irregularities...))
	}
	return out
}

// indexed is a series entry that will be written again, with its chunks.
type indexed struct {
	labels []labels.Label
	chunks []chunks.Meta
}

// bend writes the block's index again with the irregularities of b.Irregular.
func (b *blockPlan) bend(r *rand.Rand, dir string) error {
	entries, err := indexedSeries(dir)
	if err != nil {
		return err
	}
	has := func(k Irregularity) bool { return slices.Contains(b.Irregular, k) }
	var names []string
	values := map[string][]string{}
	for _, e := range entries {
		for _, l := range e.labels {
			names = append(names, l.Name)
			values[l.Name] = append(values[l.Name], l.Value)
		}
	}
	if has(RepeatedSeries) {
		// Before anything is done to labels, so that the two entries of a series may differ in
		// them.
		if entries, err = repeatSeries(r, dir, entries); err != nil {
			return err
		}
	}
	for i := range entries {
		e := &entries[i]
		if has(RepeatedNames) && r.IntN(3) == 0 {
			l := pick1(r, e.labels...)
			// At any place: what is last holds.
			l.Value = pick1(r, append([]string{"shadow"}, values[l.Name]...)...)
			e.labels = slices.Insert(e.labels, r.IntN(len(e.labels)+1), l)
		}
		if has(EmptyValues) && r.IntN(3) == 0 {
			l := labels.Label{Name: pick1(r, append([]string{"void"}, names...)...)}
			e.labels = slices.Insert(e.labels, r.IntN(len(e.labels)+1), l)
		}
		if has(UnorderedLabels) && r.IntN(2) == 0 {
			r.Shuffle(
				len(e.labels),
				func(i, j int) { e.labels[i], e.labels[j] = e.labels[j], e.labels[i] },
			)
		}
		if has(UnorderedChunks) && len(e.chunks) > 1 && r.IntN(2) == 0 {
			k := r.IntN(len(e.chunks) - 1)
			e.chunks[k], e.chunks[k+1] = e.chunks[k+1], e.chunks[k]
		}
	}
	if has(UnorderedSeries) {
		for range 1 + r.IntN(len(entries)) {
			i, j := r.IntN(len(entries)), r.IntN(len(entries))
			entries[i], entries[j] = entries[j], entries[i]
		}
	}
	if err := writeIndex(filepath.Join(dir, "index"), entries); err != nil {
		return err
	}
	b.setSeries(entries)
	return nil
}

// repeatSeries gives some series a second entry, with some chunks of the first entry or with copies
// of them. No chunk is referenced twice, because Thanos cannot answer that.
func repeatSeries(r *rand.Rand, dir string, in []indexed) (out []indexed, err error) {
	files, err := os.ReadDir(filepath.Join(dir, "chunks"))
	if err != nil {
		return nil, err
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		return nil, err
	}
	for _, e := range in {
		var second indexed
		switch {
		case r.IntN(3) > 0:
		case len(e.chunks) > 1 && r.IntN(3) > 0:
			var first []chunks.Meta
			for i, m := range e.chunks {
				if i%2 == 0 {
					first = append(first, m)
				} else {
					second.chunks = append(second.chunks, m)
				}
			}
			e.chunks = first
		default:
			second.chunks = slices.Clone(e.chunks)
			if err := cw.WriteChunks(second.chunks...); err != nil {
				return nil, err
			}
			for i := range second.chunks {
				// The writer numbers its own files, which follow the existing ones.
				second.chunks[i].Ref += chunks.ChunkRef(len(files)) << 32
			}
		}
		out = append(out, e)
		if len(second.chunks) > 0 {
			second.labels = slices.Clone(e.labels)
			out = append(out, second)
		}
	}
	return out, cw.Close()
}

// indexedSeries reads the series entries of a block as stored, with their chunks.
func indexedSeries(dir string) ([]indexed, error) {
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		return nil, err
	}
	defer ir.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), downsample.NewPool())
	if err != nil {
		return nil, err
	}
	defer cr.Close()
	k, v := index.AllPostingsKey()
	ps, err := ir.Postings(context.Background(), k, v)
	if err != nil {
		return nil, err
	}
	var out []indexed
	var sb labels.ScratchBuilder
	for ps.Next() {
		var e indexed
		if err := ir.Series(ps.At(), &sb, &e.chunks); err != nil {
			return nil, err
		}
		sb.Labels().Range(func(l labels.Label) {
			// The reader's strings point into the file that will be replaced.
			e.labels = append(
				e.labels,
				labels.Label{Name: string([]byte(l.Name)), Value: string([]byte(l.Value))},
			)
		})
		for i := range e.chunks {
			m := &e.chunks[i]
			c, _, err := cr.ChunkOrIterable(*m)
			if err != nil {
				return nil, err
			}
			data := slices.Clone(c.Bytes())
			if m.Chunk, err = downsample.NewPool().Get(c.Encoding(), data); err != nil {
				return nil, fmt.Errorf("chunk %x: %w", m.Ref, err)
			}
		}
		out = append(out, e)
	}
	return out, ps.Err()
}

func writeIndex(name string, entries []indexed) error {
	series := make([]rawindex.Series, len(entries))
	for i, e := range entries {
		for _, l := range e.labels {
			series[i].Labels = append(
				series[i].Labels, rawindex.Label{Name: l.Name, Value: l.Value},
			)
		}
		for _, m := range e.chunks {
			series[i].Chunks = append(
				series[i].Chunks,
				rawindex.Chunk{Ref: uint64(m.Ref), MinTime: m.MinTime, MaxTime: m.MaxTime},
			)
		}
	}
	file, err := rawindex.Encode(series)
	if err != nil {
		return err
	}
	return os.WriteFile(name, file, 0o644)
}
