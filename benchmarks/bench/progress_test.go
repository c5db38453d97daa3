package bench

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"larder/benchmarks/scenario"
)

// TestProgress: the remaining time follows from the requests that were answered, however wrong the
// guess was.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		slow := &scenario.Scenario{Name: "slow", Cache: scenario.Cold, Concurrency: 8, Requests: 40}
		p := newProgress(&out, []*scenario.Scenario{slow})
		end := p.begin(slow)
		p.expect(slow.Requests)
		for range 30 { // of a second each, for which 50 ms were guessed
			time.Sleep(time.Second)
			p.answered.Add(1)
		}
		time.Sleep(time.Millisecond) // the last line is due
		end()
		for _, want := range []string{
			"[1/1] slow: 0s, about 2s left\n", "slow: 20s, about 2", "slow: 30s, about 1",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in\n%s", want, &out)
			}
		}
	})
}
