package layout

import (
	"math/rand/v2"
	"sort"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/block/metadata"
)

// blockPlan is a block to be written. A plan with resolution > 0 is written raw to a scratch folder
// first and downsampled from there.
type blockPlan struct {
	Block
	stream *stream
	// span is the length of time at which chunks are cut.
	span int64
	// without drops every n-th series, so that neighbouring blocks differ in their series.
	without int
	// segment is the size of a chunk file.
	segment int64
}

// stream is one producer: its series, and the external labels of its uploads.
type stream struct {
	ext     labels.Labels
	members []member
	skew    skew
	// twin is the stream of which this one is a replica.
	twin *stream
}

type planner struct {
	r       *rand.Rand
	from    int64
	replica string
	streams []*stream
	plans   []*blockPlan
	ids     uint64
	// downsampled layouts hold 5m and 1h blocks.
	downsampled bool
	giants      bool
}

// externalNames contains names that sort before "__name__", between the label names of series, and
// after all of them.
var externalNames = []string{"Dc", "_az", "cluster", "region", "tenant_id", "zone", "zzzz", "ünit"}

var replicaNames = []string{"replica", "prometheus_replica", "_rep", "zz_rep", "Replica"}

func newPlanner(r *rand.Rand, giants bool) *planner {
	p := &planner{r: r, from: 1_700_000_000_000 / int64(OneHour) * OneHour, giants: giants}
	if r.IntN(8) == 0 {
		// The beginning of time: block and chunk edges at zero.
		p.from = 0
	}
	p.replica = pick1(r, replicaNames...)
	p.downsampled = r.IntN(3) > 0
	return p
}

func (p *planner) plan() {
	hours := int64(8)
	if p.giants {
		hours = 4
	}
	to := p.from + hours*OneHour
	names := append([]string(nil), externalNames...)
	p.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+p.r.IntN(3)]
	clash := []string{names[0]}
	histograms := !p.downsampled || p.r.IntN(3) == 0
	all := universe(p.r, p.from, to, clash, p.replica, histograms, p.giants)

	groups := 1 + p.r.IntN(2)
	for g := range groups {
		ext := map[string]string{}
		for i, n := range names {
			value := pick1(p.r, "eu-1", "us-1", "größe", "a b")
			ext[n] = value + string(rune('0'+g)) + string(rune('a'+i))
		}
		if g > 0 && p.r.IntN(4) == 0 {
			// Blocks without external labels.
			ext = map[string]string{}
		}
		mine := all
		if g > 0 {
			mine = thin(all, 7)
		}
		if p.r.IntN(3) > 0 {
			// A replicated pair; the second replica is late, reports other values, or is identical.
			sk := pick1(p.r, skew{}, skew{}, skew{values: true}, skew{offset: 3000, values: true})
			for i, v := range []string{"a", "b"} {
				with := map[string]string{p.replica: v}
				for k, x := range ext {
					with[k] = x
				}
				s := &stream{ext: labels.FromMap(with), members: mine}
				if i == 1 {
					s.skew, s.members, s.twin = sk, thin(mine, 11), p.streams[len(p.streams)-1]
				}
				p.streams = append(p.streams, s)
			}
			continue
		}
		p.streams = append(p.streams, &stream{ext: labels.FromMap(ext), members: mine})
	}
	for _, s := range p.streams {
		if s.twin == nil || p.r.IntN(3) == 0 {
			p.timeline(s, to)
		} else {
			p.mirror(s)
		}
	}
	p.mark()
}

// thin drops every n-th member.
func thin(ms []member, n int) []member {
	var out []member
	for i, m := range ms {
		if i%n != n-1 {
			out = append(out, m)
		}
	}
	return out
}

// timeline places one stream's blocks along the time axis, one pattern after another.
func (p *planner) timeline(s *stream, to int64) {
	span := pick1(p.r, 10*minute, 20*minute, 30*minute, OneHour)
	if p.giants {
		span = 10 * minute
	}
	for at := p.from; at < to; {
		length := pick1(p.r, OneHour, 2*OneHour, 2*OneHour)
		end := min(at+length, to)
		patterns := []func(s *stream, from, to, span int64){
			p.plain,
			p.plain,
			p.gap,
			p.overlap,
			p.nested,
			p.twice,
			p.compacted,
		}
		if p.downsampled {
			patterns = append(
				patterns, p.resolutions, p.resolutions, p.rawDeleted, p.rawDeleted, p.fineInside,
				p.coarseNested, p.coarseNested,
			)
		}
		patterns[p.r.IntN(len(patterns))](s, at, end, span)
		at = end
	}
}

func (p *planner) add(s *stream, from, to, span, resolution int64) *blockPlan {
	id := p.newID()
	b := &blockPlan{
		Block: Block{
			ID: id, Labels: s.ext, MinTime: from, MaxTime: to, Resolution: resolution,
			Sources: []ulid.ULID{id},
			Source: pick1(
				p.r, metadata.SidecarSource, metadata.ReceiveSource, metadata.CompactorSource,
			),
		},
		stream: s, span: span, segment: pick1(p.r, int64(0), 0, 16<<10),
	}
	if p.r.IntN(3) == 0 {
		b.without = 3 + p.r.IntN(5)
	}
	p.plans = append(p.plans, b)
	return b
}

// mirror gives a replica the same blocks as its twin, as two Prometheus servers behind one
// compactor have them. Where their data are the same, their chunks are the same.
func (p *planner) mirror(s *stream) {
	ids := map[ulid.ULID]ulid.ULID{}
	for _, b := range p.plans {
		if b.stream != s.twin {
			continue
		}
		c := *b
		c.ID, c.Labels, c.stream = p.newID(), s.ext, s
		ids[b.ID], c.Sources = c.ID, nil
		for _, x := range b.Sources {
			// Sources of a compacted block were planned before it.
			c.Sources = append(c.Sources, ids[x])
		}
		p.plans = append(p.plans, &c)
	}
}

func (p *planner) newID() ulid.ULID {
	p.ids++
	var id ulid.ULID
	// It is older than every delay, because the id contains the time.
	if err := id.SetTime(1_690_000_000_000 + p.ids*1000); err != nil {
		panic(err)
	}
	var e [10]byte
	for i := range e {
		e[i] = byte(p.r.Uint32())
	}
	if err := id.SetEntropy(e[:]); err != nil {
		panic(err)
	}
	return id
}

func (p *planner) plain(s *stream, from, to, span int64) { p.add(s, from, to, span, Raw) }

func (p *planner) gap(*stream, int64, int64, int64) {}

func (p *planner) overlap(s *stream, from, to, span int64) {
	p.add(s, from, to, span, Raw)
	p.add(s, from-30*minute, from+(to-from)/2, span, Raw)
}

func (p *planner) nested(s *stream, from, to, span int64) {
	quarter := (to - from) / 4
	p.add(s, from, to, span, Raw)
	p.add(s, from+quarter, from+2*quarter, pick1(p.r, span, 15*minute), Raw)
}

func (p *planner) twice(s *stream, from, to, span int64) {
	p.add(s, from, to, span, Raw)
	p.add(s, from, to, pick1(p.r, span, 20*minute), Raw)
}

// compacted writes a block together with its source blocks, which retention has not removed yet.
func (p *planner) compacted(s *stream, from, to, span int64) {
	mid := from + (to-from)/2
	a, b := p.add(s, from, mid, span, Raw), p.add(s, mid, to, span, Raw)
	c := p.add(s, from, to, span, Raw)
	c.Sources = []ulid.ULID{a.ID, b.ID}
	c.Source = metadata.CompactorSource
	a.MarkAge = pick1(p.r, 0, time.Hour, 30*time.Hour)
	b.MarkAge = a.MarkAge
}

func (p *planner) resolutions(s *stream, from, to, span int64) {
	p.add(s, from, to, span, Raw)
	p.add(s, from, to, span, FiveMinutes)
	if p.r.IntN(3) > 0 {
		p.add(s, from, to, span, OneHour)
	}
}

func (p *planner) rawDeleted(s *stream, from, to, span int64) {
	p.add(s, from, to, span, FiveMinutes)
	p.add(s, from, to, span, OneHour)
}

// fineInside writes a coarse block only in the middle of a raw one, which then fills two gaps.
func (p *planner) fineInside(s *stream, from, to, span int64) {
	quarter := (to - from) / 4
	p.add(s, from, to, span, Raw)
	p.add(s, from+quarter, from+2*quarter, span, FiveMinutes)
}

// coarseNested nests one coarse block in another, which makes Thanos's cursor move backward.
func (p *planner) coarseNested(s *stream, from, to, span int64) {
	eighth := (to - from) / 8
	p.add(s, from, from+4*eighth, span, Raw)
	p.add(s, from+4*eighth, to, span, Raw)
	outer := p.add(s, from+eighth, from+7*eighth, span, FiveMinutes)
	p.add(s, from+2*eighth, from+3*eighth, span, FiveMinutes)
	// The raw blocks have series of their own. If a gateway reads them needlessly, these series
	// show.
	outer.without = 3
}

// mark marks a few blocks for deletion: some long ago, which must not be served, and some recently,
// which must be served.
func (p *planner) mark() {
	sort.SliceStable(
		p.plans, func(i, j int) bool { return before(&p.plans[i].Block, &p.plans[j].Block) },
	)
	for _, b := range p.plans {
		switch p.r.IntN(12) {
		case 0:
			b.MarkAge = 30 * time.Hour
		case 1:
			b.MarkAge = time.Hour
		}
	}
}
