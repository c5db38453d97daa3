package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// BenchmarkPoll measures what one poll of a hand-over costs a member: a question for each ordinal,
// and a report of each member, in two zones with 10,000 blocks in the bucket.
func BenchmarkPoll(b *testing.B) {
	for _, c := range [][2]int{{1, 2}, {3, 5}, {12, 15}, {100, 120}} {
		b.Run(fmt.Sprintf("%d-to-%d", c[0], c[1]), func(b *testing.B) {
			p := newPolled(c[0], c[1], 10_000)
			for b.Loop() {
				p.poll()
			}
			b.ReportMetric(float64(len(p.m.leaving())), "leaving")
		})
	}
}

// polled is a member that hands blocks over, and the reports of its peers.
type polled struct {
	m       *Member
	peers   []ID
	reports []Report
	now     int
}

// newPolled returns a former owner of blocks that move, in a bucket with n blocks.
func newPolled(from, to, n int) *polled {
	zones := []string{"a", "b"}
	current, next := Config{1, from, zones}, Config{2, to, zones}
	state := State{Current: current, Next: next, Committed: true}
	id := ID{"a", 0}
	if to < from {
		id.Ordinal = from - 1
	}
	p := &polled{m: NewMember(Options{}, id, 1, state, 0)}
	var own []Block
	for _, id := range drawBlocks(rand.New(rand.NewPCG(1, 2)), n) {
		if current.Owns(p.m.id, id) || next.Owns(p.m.id, id) {
			own = append(own, Block{ID: id, Warm: true})
		}
	}
	slices.SortFunc(own, func(x, y Block) int { return x.ID.Compare(y.ID) })
	p.m.HandleBlocks(0, own)
	for i, id := range members(current, next) {
		if id != p.m.id {
			p.peers = append(p.peers, id)
			p.reports = append(p.reports, Report{
				ID: id, Instance: uint64(i + 2), State: state, Serves: p.m.Question(id.Ordinal),
			})
		}
	}
	return p
}

// poll asks every peer and takes its report.
func (p *polled) poll() {
	asked := map[int]bool{}
	for _, id := range p.peers {
		if !asked[id.Ordinal] {
			asked[id.Ordinal] = true
			p.m.Question(id.Ordinal)
		}
	}
	for i, r := range p.reports {
		p.m.HandleReport(0, 0, p.reports[i].Serves, r)
	}
}
