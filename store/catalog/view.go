package catalog

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// The resolutions a block can have, in milliseconds.
const (
	ResolutionRaw int64 = 0
	Resolution5m  int64 = 300_000
	Resolution1h  int64 = 3_600_000
)

// resolutions are the levels of Set.ByResolution, finest first.
var resolutions = [...]int64{ResolutionRaw, Resolution5m, Resolution1h}

// resolutionLevel returns the index of a resolution in Set.ByResolution, -1 for an invalid one.
func resolutionLevel(resolution int64) int {
	switch resolution {
	case ResolutionRaw:
		return 0
	case Resolution5m:
		return 1
	case Resolution1h:
		return 2
	}
	return -1
}

// View is the set of blocks that the process serves at one time. It is immutable.
type View struct {
	// Ready is false until a sync was complete or a saved catalog was loaded. A view that is not
	// ready may have blocks, but an unknown number is missing.
	Ready bool
	// FromDisk means that the view has blocks from the saved catalog of an earlier process, because
	// no sync was complete yet.
	FromDisk bool
	// Blocks are sorted by MinTime, MaxTime, ID.
	Blocks []*Block
	// Sets are the distinct external label sets, sorted by their string form. Each has at least one
	// block.
	Sets []*Set
	// MinTime and MaxTime bound all blocks. Without blocks they are math.MaxInt64 and
	// math.MinInt64.
	MinTime, MaxTime int64

	byID map[ulid.ULID]*Block
	// sets[i] is the label set of Blocks[i], reach[i] the largest MaxTime of Blocks[:i+1].
	sets  []*Set
	reach []int64
}

// Set has the blocks of one external label set.
type Set struct {
	Labels labels.Labels
	// ByResolution are the blocks of each resolution, raw first, sorted by MinTime, MaxTime, ID.
	ByResolution [len(resolutions)][]*Block
	// MinTime and MaxTime bound the set's blocks.
	MinTime, MaxTime int64

	// reach[l][i] is the largest MaxTime of ByResolution[l][:i+1]. It never decreases: a binary
	// search finds the first block that can overlap a range, even if blocks nest.
	reach [len(resolutions)][]int64
}

// NewView returns a view of the given blocks, in any order. The blocks must not change any more,
// their IDs must differ, and their resolutions must be valid.
func NewView(blocks []*Block, ready bool) *View {
	v := &View{
		Ready:   ready,
		Blocks:  slices.Clone(blocks),
		MinTime: math.MaxInt64,
		MaxTime: math.MinInt64,
		byID:    make(map[ulid.ULID]*Block, len(blocks)),
		sets:    make([]*Set, 0, len(blocks)),
		reach:   make([]int64, 0, len(blocks)),
	}
	slices.SortFunc(v.Blocks, compareBlocks)

	var (
		buf  []byte
		sets = map[string]*Set{}
	)
	for _, b := range v.Blocks {
		v.byID[b.ID] = b
		v.MinTime, v.MaxTime = min(v.MinTime, b.MinTime), max(v.MaxTime, b.MaxTime)
		v.reach = append(v.reach, v.MaxTime)

		buf = b.Labels.Bytes(buf)
		set, ok := sets[string(buf)]
		if !ok {
			set = &Set{Labels: b.Labels, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
			sets[string(buf)] = set
			v.Sets = append(v.Sets, set)
		}
		set.add(b)
		v.sets = append(v.sets, set)
	}
	names := make(map[*Set]string, len(v.Sets))
	for _, s := range v.Sets {
		names[s] = s.Labels.String()
	}
	slices.SortFunc(v.Sets, func(a, b *Set) int { return strings.Compare(names[a], names[b]) })
	return v
}

// add appends a block. Blocks must be added in the order of compareBlocks.
func (s *Set) add(b *Block) {
	l := resolutionLevel(b.Resolution)
	reach := b.MaxTime
	if n := len(s.reach[l]); n > 0 {
		reach = max(reach, s.reach[l][n-1])
	}
	s.ByResolution[l] = append(s.ByResolution[l], b)
	s.reach[l] = append(s.reach[l], reach)
	s.MinTime, s.MaxTime = min(s.MinTime, b.MinTime), max(s.MaxTime, b.MaxTime)
}

// ByID returns the block with the given ID, nil if it is not in the view.
func (v *View) ByID(id ulid.ULID) *Block {
	return v.byID[id]
}

// same reports whether two views have the same blocks in the same state.
func (v *View) same(o *View) bool {
	return v.Ready == o.Ready && v.FromDisk == o.FromDisk && slices.Equal(v.Blocks, o.Blocks)
}

func compareBlocks(a, b *Block) int {
	return cmp.Or(
		cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime), a.ID.Compare(b.ID),
	)
}
