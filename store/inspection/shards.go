package inspection

import (
	"fmt"

	"larder/shard"
	"larder/store/catalog"
)

// ShardsOptions choose what Shards reports.
type ShardsOptions struct {
	// Count is the number of shards now. 0: none, only Hashmod.
	Count int
	// To is the number of shards after a move. 0: no move.
	To int
	// Hashmod are the rules that shard blocks today, nil for none.
	Hashmod *catalog.Hashmod
}

// ShardsReport says how blocks spread over shards.
type ShardsReport struct {
	Bucket string `json:"bucket"`
	// Selected are the blocks of all shards. Covered are those among them that a larger block
	// replaces: a shard serves them until they are deleted.
	Selected Totals    `json:"selected"`
	Covered  Totals    `json:"covered"`
	Range    TimeRange `json:"range"`
	// Left are the blocks that time range, relabelling or marks exclude.
	Left    []Left     `json:"left_out"`
	Schemes []Scheme   `json:"schemes"`
	Moves   []Move     `json:"moves"`
	Bad     []BadBlock `json:"bad_blocks"`
	// Complete is false if the bucket failed to return some documents.
	Complete bool `json:"complete"`
}

// Scheme is one way to divide blocks among shards.
type Scheme struct {
	// Kind is rendezvous or hashmod.
	Kind   string  `json:"kind"`
	Count  int     `json:"count"`
	Shards []Shard `json:"shards"`
	// Imbalance is the largest shard divided by the mean, 0 without blocks.
	Imbalance Imbalance `json:"imbalance"`

	owner func(b *catalog.Block) int
}

// Shard is one shard of a Scheme.
type Shard struct {
	Ordinal int `json:"ordinal"`
	Totals
	Range TimeRange `json:"range"`

	reach reach
}

// Imbalance is the largest shard divided by the mean.
type Imbalance struct {
	Blocks float64 `json:"blocks"`
	Bytes  float64 `json:"bytes"`
	Series float64 `json:"series"`
}

// Move says what a change from one scheme to another moves.
type Move struct {
	From SchemeName `json:"from"`
	To   SchemeName `json:"to"`
	// Moved are the blocks that get another owner.
	Moved Totals `json:"moved"`
	// Share is the moved share of all blocks, BytesShare that of all bytes.
	Share      float64 `json:"share"`
	BytesShare float64 `json:"bytes_share"`
	// Shards are what each shard of either scheme gains and loses.
	Shards []ShardMove `json:"shards"`
}

// SchemeName names a scheme of a move.
type SchemeName struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
}

// String returns, for instance, "rendezvous 3".
func (n SchemeName) String() string { return fmt.Sprintf("%s %d", n.Kind, n.Count) }

// ShardMove is what a move means for one shard.
type ShardMove struct {
	Ordinal int    `json:"ordinal"`
	Gains   Totals `json:"gains"`
	Loses   Totals `json:"loses"`
}

// The kinds of schemes.
const (
	Rendezvous = "rendezvous"
	Hashmod    = "hashmod"
)

// MaxShards bounds the number of shards of a report.
const MaxShards = 1024

// Shards reports how the blocks of an inventory spread over shards. Blocks that the options of the
// inventory exclude are left out. Covered blocks count, because ownership is decided before they
// are left out.
func Shards(inv *catalog.Inventory, bucket string, o ShardsOptions) *ShardsReport {
	r := &ShardsReport{Bucket: bucket, Schemes: []Scheme{}, Moves: []Move{}}
	var failed bool
	r.Bad, failed = badBlocks(inv.Entries)
	r.Complete = !failed
	left := map[string]*Totals{}
	all := newReach()
	var blocks []*catalog.Block
	for _, e := range inv.Entries {
		if e.Block == nil {
			continue
		}
		if e.State != catalog.StateLoaded {
			if left[e.State] == nil {
				left[e.State] = new(Totals)
			}
			left[e.State].add(e.Block)
			continue
		}
		r.Selected.add(e.Block)
		if e.Covered {
			r.Covered.add(e.Block)
		}
		all.add(e.Block)
		blocks = append(blocks, e.Block)
	}
	r.Left, r.Range = sortedLeft(left), all.timeRange()
	r.plan(o)
	for i := range r.Schemes {
		r.Schemes[i].fill(blocks)
	}
	for i := range r.Moves {
		r.Moves[i].fill(r, blocks)
	}
	return r
}

// plan adds the schemes and moves of the options.
func (r *ShardsReport) plan(o ShardsOptions) {
	rendezvous := func(count int) SchemeName {
		r.Schemes = append(r.Schemes, Scheme{Kind: Rendezvous, Count: count,
			owner: func(b *catalog.Block) int { return shard.Owner(b.ID, count) }})
		return SchemeName{Rendezvous, count}
	}
	hashmod := func(count uint64) SchemeName {
		r.Schemes = append(r.Schemes, Scheme{Kind: Hashmod, Count: int(count),
			owner: func(b *catalog.Block) int { return o.Hashmod.Owner(b, count) }})
		return SchemeName{Hashmod, int(count)}
	}
	move := func(from, to SchemeName) { r.Moves = append(r.Moves, Move{From: from, To: to}) }
	var today SchemeName // of hashmod
	if o.Hashmod != nil {
		today = hashmod(o.Hashmod.Modulus())
		if o.To > 0 && uint64(o.To) != o.Hashmod.Modulus() {
			move(today, hashmod(uint64(o.To)))
		}
	}
	var now SchemeName
	if o.Count > 0 {
		now = rendezvous(o.Count)
		if o.Hashmod != nil {
			move(today, now)
		}
	}
	if o.To > 0 && o.To != o.Count {
		to := rendezvous(o.To)
		if o.Count > 0 {
			move(now, to)
		} else if o.Hashmod != nil {
			move(today, to)
		}
	}
}

// fill counts the blocks of each shard.
func (s *Scheme) fill(blocks []*catalog.Block) {
	s.Shards = make([]Shard, s.Count)
	for i := range s.Shards {
		s.Shards[i].Ordinal, s.Shards[i].reach = i, newReach()
	}
	for _, b := range blocks {
		if i := s.owner(b); i >= 0 {
			s.Shards[i].add(b)
			s.Shards[i].reach.add(b)
		}
	}
	for i := range s.Shards {
		s.Shards[i].Range = s.Shards[i].reach.timeRange()
	}
	s.Imbalance = Imbalance{
		Blocks: s.imbalance(func(t Totals) float64 { return float64(t.Blocks) }),
		Bytes:  s.imbalance(func(t Totals) float64 { return float64(t.Bytes) }),
		Series: s.imbalance(func(t Totals) float64 { return float64(t.Series) }),
	}
}

func (s *Scheme) imbalance(of func(Totals) float64) float64 {
	sum, largest := 0.0, 0.0
	for _, sh := range s.Shards {
		sum += of(sh.Totals)
		largest = max(largest, of(sh.Totals))
	}
	return ratio(largest*float64(len(s.Shards)), sum)
}

// ratio returns a/b, and 0 for b = 0, which JSON cannot express otherwise.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// fill counts what moves.
func (m *Move) fill(r *ShardsReport, blocks []*catalog.Block) {
	from, to := r.scheme(m.From), r.scheme(m.To)
	m.Shards = make([]ShardMove, max(from.Count, to.Count))
	for i := range m.Shards {
		m.Shards[i].Ordinal = i
	}
	for _, b := range blocks {
		old, owner := from.owner(b), to.owner(b)
		if old == owner {
			continue
		}
		m.Moved.add(b)
		if old >= 0 {
			m.Shards[old].Loses.add(b)
		}
		if owner >= 0 {
			m.Shards[owner].Gains.add(b)
		}
	}
	m.Share = ratio(float64(m.Moved.Blocks), float64(r.Selected.Blocks))
	m.BytesShare = ratio(float64(m.Moved.Bytes), float64(r.Selected.Bytes))
}

func (r *ShardsReport) scheme(n SchemeName) *Scheme {
	for i := range r.Schemes {
		if r.Schemes[i].Kind == n.Kind && r.Schemes[i].Count == n.Count {
			return &r.Schemes[i]
		}
	}
	return nil
}
