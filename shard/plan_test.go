package shard

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// sizing is a bucket and a change of the number of shards in two zones. Sizes of blocks are
// log-normal with a deviation of 1, and series are in proportion.
type sizing struct {
	from, to, blocks int
	series           float64
}

// write prints how even the shards are, what moves, and what the polls of the hand-over ask.
func (s sizing) write(out *strings.Builder) {
	const repeats = 40
	rng := rand.New(rand.NewPCG(9, uint64(s.blocks)))
	var most, mostBytes, moved, movedBytes, received []float64
	for range repeats {
		count, bytes, arrive := make([]float64, s.to), make([]float64, s.to), make([]float64, s.to)
		total, moves, movesBytes := 0.0, 0.0, 0.0
		for _, b := range drawBlocks(rng, s.blocks) {
			size := math.Exp(rng.NormFloat64())
			before, after := Owner(b, s.from), Owner(b, s.to)
			count[after]++
			bytes[after] += size
			total += size
			if before != after {
				moves++
				movesBytes += size
				arrive[after] += size
			}
		}
		mean := total / float64(s.to)
		most = append(most, slices.Max(count))
		mostBytes = append(mostBytes, slices.Max(bytes)/mean)
		moved = append(moved, moves/float64(s.blocks))
		movedBytes = append(movedBytes, movesBytes/total)
		received = append(received, slices.Max(arrive)/mean)
	}
	// quantile sorts.
	largest := quantile(mostBytes, 0.95)
	fmt.Fprintf(out, "blocks of a shard: %d in the mean, %.0f in the largest\n", s.blocks/s.to,
		quantile(most, 0.95))
	fmt.Fprintf(out, "bytes of a shard: largest %.2f times the mean, with %.1f million series\n",
		largest, largest*s.series/float64(s.to)/1e6)
	fmt.Fprintf(out, "moved: %.3f of the blocks, %.3f of the bytes in the mean; %.3f at most\n",
		mean(moved), mean(movedBytes), quantile(movedBytes, 0.95))
	fmt.Fprintf(out, "received by a shard: %.2f times the bytes of a shard at most\n",
		quantile(received, 0.95))
	s.writePolls(out)
}

// pollEvery is the interval of polls with the default Querier wait.
const pollEvery = 5 * time.Second

func (s sizing) writePolls(out *strings.Builder) {
	p := newPolled(s.from, s.to, s.blocks)
	size := func(v any) int {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return len(b)
	}
	sent, got, longest := 0, 0, 0
	for i, id := range p.peers {
		asked := p.m.Question(id.Ordinal)
		longest = max(longest, len(asked))
		sent += size(struct {
			Blocks []ulid.ULID `json:"blocks"`
		}{asked})
		got += size(p.reports[i])
	}
	fmt.Fprintf(out, "a poll of a former owner: %d requests, %d KB sent, %d KB received, "+
		"at most %d blocks in a question; %.0f requests a second\n", len(p.peers), sent/1000,
		got/1000, longest, float64(len(p.peers))/pollEvery.Seconds())
}
