package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/faultstore"
	"larder/internal/localfs"
)

// hashmodRules keep one remainder, after the rules of before.
func hashmodRules(t *testing.T, modulus int, kept, before string) []*relabel.Config {
	t.Helper()
	rules, err := ParseRelabelConfig(fmt.Appendf(nil, `%s
- {action: hashmod, source_labels: [__block_id], target_label: shard, modulus: %d}
- {action: keep, source_labels: [shard], regex: %q}`, before, modulus, kept))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// patient is a catalog whose rules change, under a fake clock.
type patient struct {
	t      *testing.T
	bucket *testBucket
	dir    string
	ids    []ulid.ULID
	wait   time.Duration
	c      *Catalog
	stop   func()
}

func newPatient(t *testing.T) *patient {
	p := &patient{t: t, bucket: newTestBucket(), dir: t.TempDir(), wait: time.Hour}
	for n := range uint64(40) {
		p.ids = append(p.ids, putBlock(p.bucket, n))
	}
	return p
}

// start starts a process with rules, which lists the bucket.
func (p *patient) start(rules []*relabel.Config) {
	p.t.Helper()
	c, err := New(Options{
		Bucket: p.bucket, Dir: localfs.At(p.dir), Relabel: rules, HashmodPatience: p.wait,
		Interval: 100 * time.Hour,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	p.c, p.stop = c, func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
		c.Close()
	}
	synctest.Wait()
}

func (p *patient) restart(rules []*relabel.Config) {
	p.t.Helper()
	p.stop()
	p.start(rules)
}

func (p *patient) reselect(rules []*relabel.Config) {
	p.t.Helper()
	if err := p.c.Reselect(rules); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

// serves checks that exactly the blocks that one of these lists of rules selects are served.
func (p *patient) serves(when string, lists ...[]*relabel.Config) {
	p.t.Helper()
	synctest.Wait()
	var want, got []string
	for _, id := range p.ids {
		if slices.ContainsFunc(lists, func(rules []*relabel.Config) bool {
			s := newSelector(rules)
			return s.keeps(&Block{ID: id})
		}) {
			want = append(want, id.String())
		}
	}
	for _, b := range p.c.View().Blocks {
		got = append(got, b.ID.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Errorf("%s: serves %d blocks, want %d", when, len(got), len(want))
	}
}

// TestHashmodPatience: blocks that leave by another modulus or remainder stay for the patience, and
// leave without another change, through restarts too.
func TestHashmodPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three, two := hashmodRules(t, 3, "0", ""), hashmodRules(t, 2, "0", "")
		five := hashmodRules(t, 5, "0", "")
		p := newPatient(t)
		p.start(three)
		p.serves("at first", three)
		p.reselect(two)
		p.serves("after the change", three, two)
		time.Sleep(30 * time.Minute)
		p.restart(two)
		p.serves("after a restart", three, two)
		p.reselect(five)
		p.serves("after a second change", three, two, five)
		time.Sleep(30 * time.Minute)
		p.serves("when the first rules have ended", two, five)
		p.reselect(two)
		p.serves("back", two, five)
		time.Sleep(time.Hour)
		p.serves("at the end", two)
		// A change by a restart, as with a rollout.
		p.restart(three)
		p.serves("after a restart with other rules", two, three)
		time.Sleep(time.Hour)
		p.serves("an hour later", three)
		p.restart(three)
		p.serves("after a last restart", three)
		p.stop()
	})
}

// TestOtherChangesActAtOnce: rules that differ in anything else do not wait, and end what waits.
func TestOtherChangesActAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := hashmodRules(t, 3, "0", "")
		other := func(change func([]*relabel.Config)) []*relabel.Config {
			rules := hashmodRules(t, 2, "0", "")
			change(rules)
			return rules
		}
		for name, rules := range map[string][]*relabel.Config{
			"another rule before": hashmodRules(t, 2, "0",
				`- {action: drop, source_labels: [replica], regex: none}`),
			"no rules": nil,
			"another label": other(func(r []*relabel.Config) {
				r[0].TargetLabel = "x"
				r[1].SourceLabels[0] = "x"
			}),
			"another hash": other(func(r []*relabel.Config) { r[0].SourceLabels[0] = "replica" }),
			"a separator":  other(func(r []*relabel.Config) { r[0].Separator = "/" }),
			"drop":         other(func(r []*relabel.Config) { r[1].Action = relabel.Drop }),
			"two hashes":   append(hashmodRules(t, 2, "0", ""), hashmodRules(t, 5, "1", "")...),
		} {
			p := newPatient(t)
			p.start(base)
			p.reselect(hashmodRules(t, 3, "1", ""))
			p.reselect(rules)
			p.serves(name, rules)
			p.restart(base)
			p.serves(name+", and back by a restart", base)
			p.stop()
		}
	})
}

// TestNoPatience: without the option nothing waits and nothing is kept on disk.
func TestNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three, two := hashmodRules(t, 3, "0", ""), hashmodRules(t, 2, "0", "")
		p := newPatient(t)
		p.start(three)
		p.stop()
		p.wait = 0
		p.start(three)
		p.reselect(two)
		p.serves("after a change", two)
		p.restart(three)
		p.serves("after a restart", three)
		if _, err := os.Stat(filepath.Join(p.dir, rulingName)); !os.IsNotExist(err) {
			t.Errorf("the rules are still on disk: %v", err)
		}
		p.stop()
	})
}

// TestDamagedRules: a file that does not verify counts as absent.
func TestDamagedRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three, two := hashmodRules(t, 3, "0", ""), hashmodRules(t, 2, "0", "")
		p := newPatient(t)
		p.start(three)
		p.stop()
		if err := os.WriteFile(filepath.Join(p.dir, rulingName), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.start(two)
		p.serves("after damage", two)
		p.reselect(three)
		p.serves("after a change", two, three)
		p.stop()
	})
}

// TestPatienceWithoutTheBucket: former rules end on time although the bucket cannot be listed.
func TestPatienceWithoutTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three, two := hashmodRules(t, 3, "0", ""), hashmodRules(t, 2, "0", "")
		p := newPatient(t)
		p.start(three)
		p.reselect(two)
		p.bucket.faults.Set(failLists(faultstore.ServerError, 0))
		time.Sleep(59 * time.Minute)
		p.serves("before the end", two, three)
		time.Sleep(2 * time.Minute)
		p.serves("after the end", two)
		p.stop()
	})
}
