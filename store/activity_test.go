package store_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"larder/internal/activity"
	"larder/store"
)

// TestActivityKnowsRequests checks that a request is listed while it runs, and then with its stages
// and blocks, and that one that failed or panicked says why.
func TestActivityKnowsRequests(t *testing.T) {
	dir, req := explainedBucket(t)
	log := activity.New()
	opts := smallGateway()
	opts.server = func(o *store.Options) { o.Activity = log }
	g := startGateway(t, dir, opts)
	var running []activity.Request
	g.bucket.setOnRead(func(_ string, _, _ int64, b io.ReadCloser) (io.ReadCloser, error) {
		if running == nil {
			running, _ = log.Running()
		}
		return b, nil
	})
	if _, err := g.Server.ExplainRun(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if len(running) != 1 || running[0].Method != "Series" || running[0].Waiting ||
		running[0].Matchers != `{__name__!=""}` {
		t.Errorf("while it ran: %+v", running)
	}
	if now, n := log.Running(); n != 0 {
		t.Errorf("after its end %v runs", now)
	}
	slow := log.Slowest()
	if len(slow) != 1 || slow[0].Series != 400 || slow[0].Requests == 0 || slow[0].Queried != 1 {
		t.Fatalf("slowest: %+v", slow)
	}
	blocks := map[string]int{}
	for _, s := range slow[0].Stages {
		blocks[s.Name] = len(s.Blocks)
		if s.Until < s.From || s.Until > slow[0].Duration || s.Total <= 0 {
			t.Errorf("stage %+v of %v", s, slow[0].Duration)
		}
	}
	if blocks["postings"] != 1 || blocks["series"] != 1 || blocks["chunks"] != 1 {
		t.Errorf("blocks by stage: %v", blocks)
	}

	cold := startGateway(t, dir, opts)
	cold.bucket.setOnRead(func(string, int64, int64, io.ReadCloser) (io.ReadCloser, error) {
		return nil, errors.New("no bucket today")
	})
	if _, err := cold.query(t.Context(), req); err == nil {
		t.Fatal("the request was answered")
	}
	if f := log.Failures(); len(f) != 1 || f[0].Code != "Aborted" || f[0].Err == "" {
		t.Errorf("failures: %+v", f)
	}

	cold.bucket.setOnRead(nil)
	panics := &frames{ctx: t.Context(), on: func(int) error { panic("boom") }}
	if err := cold.Server.Series(req, panics); err == nil {
		t.Fatal("the request was answered")
	}
	if f := log.Failures(); len(f) != 2 || f[0].Code != "Internal" ||
		!strings.Contains(f[0].Err, "boom") {
		t.Errorf("failures after a panic: %+v", f)
	}
}
