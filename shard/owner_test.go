package shard

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
)

const draws = 1000

// drawBlocks returns ULIDs as compactors make them: some days of timestamps, and random bits.
func drawBlocks(rng *rand.Rand, n int) []ulid.ULID {
	blocks := make([]ulid.ULID, n)
	for i := range blocks {
		ms := 1_700_000_000_000 + rng.Uint64N(uint64(n)*7_200_000)
		if err := blocks[i].SetTime(ms); err != nil {
			panic(err)
		}
		binary.BigEndian.PutUint64(blocks[i][6:14], rng.Uint64())
		binary.BigEndian.PutUint16(blocks[i][14:], uint16(rng.Uint32()))
	}
	return blocks
}

// spread returns the largest load of a shard divided by the mean. A nil weight means 1 a block.
func spread(blocks []ulid.ULID, weight []float64, count int) float64 {
	loads, total := make([]float64, count), 0.0
	for i, b := range blocks {
		w := 1.0
		if weight != nil {
			w = weight[i]
		}
		loads[Owner(b, count)] += w
		total += w
	}
	return slices.Max(loads) * float64(count) / total
}

// quantile returns the q-quantile of values, which it sorts.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// TestBlocksAreSpreadEvenly: with 1,000 equal blocks on 12 shards, the fullest shard has at most
// 1.35 times the mean in 95 % of draws.
func TestBlocksAreSpreadEvenly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, draws)
	for i := range ratios {
		ratios[i] = spread(drawBlocks(rng, 1000), nil, 12)
	}
	got := quantile(ratios, 0.95)
	t.Logf("1,000 blocks, 12 shards, max/mean: mean %.3f, p95 %.3f", mean(ratios), got)
	if got > 1.35 || got < 1.15 {
		t.Errorf("max/mean is %.3f in 95 %% of draws, want 1.15 to 1.35", got)
	}
}

// TestGrowthMovesFewBlocks: from n to n+1 shards, at most 1.05/(n+1) of the blocks move in the mean
// of the draws, and all of them move to the new ordinal.
func TestGrowthMovesFewBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 3, 12, 40} {
		moved := 0
		for range draws {
			for _, b := range drawBlocks(rng, 200) {
				before, after := Owner(b, n), Owner(b, n+1)
				if before == after {
					continue
				}
				if moved++; after != n {
					t.Fatalf("block %s moved from %d to %d of %d shards", b, before, after, n+1)
				}
			}
		}
		share := float64(moved) / (200 * draws) * float64(n+1)
		t.Logf("%d to %d shards: moved %.3f/%d", n, n+1, share, n+1)
		if share > 1.05 || share < 0.95 {
			t.Errorf("from %d shards %.3f/%d of the blocks moved, want 0.95 to 1.05", n, share, n+1)
		}
	}
}

// TestOwnerDependsOnAllBits: blocks that differ in one bit have independent owners. 128 neighbours
// of a block are spread like 128 random blocks.
func TestOwnerDependsOnAllBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	same := 0
	for _, b := range drawBlocks(rng, draws) {
		for bit := range 128 {
			near := b
			near[bit/8] ^= 1 << (bit % 8)
			if Owner(b, 8) == Owner(near, 8) {
				same++
			}
		}
	}
	if share := float64(same) / (128 * draws); math.Abs(share-0.125) > 0.005 {
		t.Errorf("a flipped bit leaves the owner in %.4f of cases, want 1/8", share)
	}
}

// TestOwnerScript runs testdata/owner, whose answers must never change, testdata/balance, and
// testdata/plan, whose figures docs/sharding.md has.
func TestOwnerScript(t *testing.T) {
	for _, file := range []string{"testdata/owner", "testdata/balance", "testdata/plan"} {
		datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "owner":
				for _, text := range strings.Fields(d.Input) {
					block := ulid.MustParse(text)
					fmt.Fprint(&out, text)
					for _, count := range []int{0, 1, 3, 5, 12, 100} {
						fmt.Fprintf(&out, " %d", Owner(block, count))
					}
					out.WriteString("\n")
				}
			case "balance":
				var count, sigma int
				d.ScanArgs(t, "shards", &count)
				d.ScanArgs(t, "sigma10", &sigma)
				writeBalance(&out, count, float64(sigma)/10)
			case "plan":
				var s sizing
				var millions int
				d.ScanArgs(t, "from", &s.from)
				d.ScanArgs(t, "to", &s.to)
				d.ScanArgs(t, "blocks", &s.blocks)
				d.ScanArgs(t, "millions", &millions)
				s.series = float64(millions) * 1e6
				s.write(&out)
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			return out.String()
		})
	}
}

// writeBalance prints how evenly blocks of log-normal sizes are spread.
func writeBalance(out *strings.Builder, count int, sigma float64) {
	for _, n := range []int{1000, 10_000} {
		rng := rand.New(rand.NewPCG(7, uint64(n)))
		ratios := make([]float64, 100)
		for i := range ratios {
			weights := make([]float64, n)
			for j := range weights {
				weights[j] = math.Exp(sigma * rng.NormFloat64())
			}
			ratios[i] = spread(drawBlocks(rng, n), weights, count)
		}
		fmt.Fprintf(out, "%d blocks: max/mean %.2f in the mean, %.2f in 95 %% of draws\n",
			n, mean(ratios), quantile(ratios, 0.95))
	}
}
