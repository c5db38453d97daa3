package inspection

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// BucketOptions choose what Bucket reports.
type BucketOptions struct {
	// MinGap is the shortest gap between two blocks that is reported. 0: every gap.
	MinGap time.Duration
	// Irregular are the results of Inspector.Check, nil if the indexes were not read.
	Irregular []Irregular
	// Unread are the blocks whose index could not be read.
	Unread []BadBlock
}

// BucketReport says what a bucket has.
type BucketReport struct {
	Bucket string `json:"bucket"`
	// Objects is the number of objects in the bucket. Others of them belong to no block.
	Objects  int      `json:"objects"`
	Others   int      `json:"other_objects"`
	Examples []string `json:"other_examples"`
	// Served are the blocks that a gateway with these options serves. Covered are those among them
	// that a larger block replaces. Left are the blocks that options or marks exclude.
	Served  Totals    `json:"served"`
	Covered Totals    `json:"covered"`
	Range   TimeRange `json:"range"`
	Left    []Left    `json:"left_out"`
	// Streams are the served blocks by label set and resolution.
	Streams []Stream  `json:"streams"`
	Partial []Partial `json:"partial_uploads"`
	Marks   []Marked  `json:"marks"`
	// Irregular are the blocks whose series or labels are out of order. Checked says whether the
	// indexes were read to find them.
	Checked   bool        `json:"indexes_checked"`
	Irregular []Irregular `json:"irregular"`
	Bad       []BadBlock  `json:"bad_blocks"`
	// Complete is false if the bucket failed to return some documents.
	Complete bool `json:"complete"`
}

// Stream are the blocks of one label set and resolution.
type Stream struct {
	Labels     map[string]string `json:"labels"`
	Resolution string            `json:"resolution"`
	Totals
	Chunks uint64    `json:"chunks"`
	Range  TimeRange `json:"range"`
	// Levels are the numbers of blocks by compaction level.
	Levels map[string]int `json:"levels"`
	// GapCount and OverlapCount count all, of which the lists have at most 1,000.
	GapCount     int         `json:"gap_count"`
	Gaps         []TimeRange `json:"gaps"`
	OverlapCount int         `json:"overlap_count"`
	Overlaps     []Overlap   `json:"overlaps"`

	text string // of the labels
}

// Overlap are blocks of one stream that overlap in time, and do not replace one another.
type Overlap struct {
	// Range contains all times that several of the blocks have.
	Range TimeRange `json:"range"`
	Count int       `json:"count"`
	// Blocks are the first 20 of them.
	Blocks []string `json:"blocks"`
}

// Partial is a block without a meta.json: an upload or a deletion that has not ended.
type Partial struct {
	Block string `json:"block"`
	// Deleting says that the block is marked for deletion.
	Deleting bool `json:"deleting"`
	Objects  int  `json:"objects"`
	Index    bool `json:"index"`
	Chunks   int  `json:"chunk_files"`
	// Modified is the latest change of an object, nil if the bucket does not state it.
	Modified *time.Time `json:"modified"`
}

// Marked is a mark of a block.
type Marked struct {
	Block   string     `json:"block"`
	Mark    string     `json:"mark"`
	At      *time.Time `json:"at"`
	Reason  string     `json:"reason"`
	Details string     `json:"details"`
}

// Irregular is a block whose series or labels are out of order.
type Irregular struct {
	Block string `json:"block"`
	What  string `json:"what"`
}

const (
	maxRanges  = 1000
	maxOverlap = 20
)

// Resolution returns the name of a resolution: raw, 5m or 1h.
func Resolution(millis int64) string {
	switch millis {
	case catalog.Resolution5m:
		return "5m"
	case catalog.Resolution1h:
		return "1h"
	}
	return "raw"
}

// Bucket reports what an inventory with files has.
func Bucket(inv *catalog.Inventory, bucket string, o BucketOptions) *BucketReport {
	r := &BucketReport{
		Bucket: bucket, Objects: inv.Objects, Others: inv.Others,
		Examples: append([]string{}, inv.Examples...),
		Streams:  []Stream{}, Partial: []Partial{}, Marks: []Marked{},
		Checked: o.Irregular != nil, Irregular: append([]Irregular{}, o.Irregular...),
	}
	left := map[string]*Totals{}
	all := newReach()
	type stream struct {
		resolution int64
		labels     string
	}
	streams := map[stream][]*catalog.Block{}
	for _, e := range inv.Entries {
		r.addMarks(e)
		if e.State == catalog.StateNoMeta {
			r.Partial = append(r.Partial, newPartial(e))
		}
		switch b := e.Block; {
		case b == nil:
		case e.State != catalog.StateLoaded:
			if left[e.State] == nil {
				left[e.State] = new(Totals)
			}
			left[e.State].add(b)
		default:
			r.Served.add(b)
			all.add(b)
			if e.Covered {
				r.Covered.add(b)
				continue
			}
			k := stream{b.Resolution, b.Labels.String()}
			streams[k] = append(streams[k], b)
		}
	}
	for k, blocks := range streams {
		r.Streams = append(r.Streams, newStream(k.labels, blocks, o.MinGap))
	}
	slices.SortFunc(r.Streams, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(level(a), level(b)))
	})
	r.Left, r.Range = sortedLeft(left), all.timeRange()
	r.addBad(inv, o)
	return r
}

// level orders the resolutions.
func level(s Stream) int { return slices.Index([]string{"raw", "5m", "1h"}, s.Resolution) }

func (r *BucketReport) addMarks(e catalog.Entry) {
	for _, m := range e.Marks {
		if m.Err != nil {
			continue // a bad block
		}
		marked := Marked{Block: e.ID.String(), Mark: m.Name, Reason: m.Reason, Details: m.Details}
		if !m.At.IsZero() {
			marked.At = &m.At
		}
		r.Marks = append(r.Marks, marked)
	}
}

func newPartial(e catalog.Entry) Partial {
	p := Partial{
		Block: e.ID.String(), Objects: e.Files.Objects, Index: e.Files.Index,
		Chunks: e.Files.Chunks,
		Deleting: slices.ContainsFunc(e.Marks, func(m catalog.Mark) bool {
			return m.Name == catalog.DeletionMark
		}),
	}
	if at := e.Files.Modified.UTC(); !e.Files.Modified.IsZero() {
		p.Modified = &at
	}
	return p
}

// addBad adds the blocks that cannot be read, and those whose files contradict their meta.json.
func (r *BucketReport) addBad(inv *catalog.Inventory, o BucketOptions) {
	bad, failed := badBlocks(inv.Entries)
	// A partial upload is usual, and has a list of its own.
	bad = slices.DeleteFunc(bad, func(b BadBlock) bool { return b.State == catalog.StateNoMeta })
	for _, e := range inv.Entries {
		if e.Block == nil {
			continue
		}
		id := e.ID.String()
		for _, what := range missing(e) {
			bad = append(bad, BadBlock{id, "incomplete", what})
		}
	}
	bad = append(bad, o.Unread...)
	slices.SortStableFunc(bad, func(a, b BadBlock) int { return cmp.Compare(a.Block, b.Block) })
	r.Bad, r.Complete = bad, !failed
}

// newStream returns the stream of blocks.
func newStream(text string, blocks []*catalog.Block, minGap time.Duration) Stream {
	slices.SortFunc(blocks, func(a, b *catalog.Block) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime),
			a.ID.Compare(b.ID))
	})
	s := Stream{
		Labels: map[string]string{}, Resolution: Resolution(blocks[0].Resolution),
		Levels: map[string]int{}, Gaps: []TimeRange{}, Overlaps: []Overlap{}, text: text,
	}
	blocks[0].Labels.Range(func(l labels.Label) { s.Labels[l.Name] = l.Value })
	all := newReach()
	var group []*catalog.Block // blocks that follow without a gap
	for _, b := range blocks {
		s.add(b)
		s.Chunks += b.NumChunks
		s.Levels[strconv.Itoa(b.Level)]++
		if len(group) > 0 && b.MinTime >= all.to {
			if b.MinTime > all.to && b.MinTime-all.to >= minGap.Milliseconds() {
				if s.GapCount++; len(s.Gaps) < maxRanges {
					s.Gaps = append(s.Gaps, newTimeRange(all.to, b.MinTime))
				}
			}
			s.addOverlap(group)
			group = group[:0]
		}
		group = append(group, b)
		all.add(b)
	}
	s.addOverlap(group)
	s.Range = all.timeRange()
	return s
}

// addOverlap adds blocks, sorted by MinTime, each of which overlaps an earlier one, except for the
// first.
func (s *Stream) addOverlap(group []*catalog.Block) {
	if len(group) < 2 {
		return
	}
	if s.OverlapCount++; len(s.Overlaps) == maxRanges {
		return
	}
	o := Overlap{Count: len(group)}
	from, to, end := group[1].MinTime, group[1].MinTime, group[0].MaxTime
	for _, b := range group[1:] {
		to = max(to, min(end, b.MaxTime))
		end = max(end, b.MaxTime)
	}
	for _, b := range group[:min(len(group), maxOverlap)] {
		o.Blocks = append(o.Blocks, b.ID.String())
	}
	o.Range = newTimeRange(from, to)
	s.Overlaps = append(s.Overlaps, o)
}

// Count returns the sums of gaps and overlaps of all streams.
func (r *BucketReport) Count() (gaps, overlaps int) {
	for _, s := range r.Streams {
		gaps += s.GapCount
		overlaps += s.OverlapCount
	}
	return gaps, overlaps
}

// LabelSets returns the number of distinct label sets.
func (r *BucketReport) LabelSets() int {
	sets := map[string]bool{}
	for _, s := range r.Streams {
		sets[s.text] = true
	}
	return len(slices.Collect(maps.Keys(sets)))
}
