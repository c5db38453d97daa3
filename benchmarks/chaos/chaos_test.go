package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/process"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

// short is the configuration of a run of seconds.
func short(only ...string) config {
	return config{
		seed: 1, only: only, injectFor: 1200 * time.Millisecond, workers: 3, size: 1, questions: 60,
		inARow: 10, recoverIn: 30 * time.Second, settle: idleFor,
	}
}

// TestChaos is the short form of `make chaos`: one fault of each kind, in real processes.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("builds larder and runs it for half a minute")
	}
	// This skips or fails without memcached; the command starts one of its own.
	memcachedtest.Start(t, memcachedtest.Options{})
	var out bytes.Buffer
	defer func() {
		if t.Failed() {
			t.Log(out.String())
		}
	}()
	w, err := newWorld(t.Context(), short(), &out)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	faults, err := process.Choose("fault", allFaults(), []string{"bucket-5xx",
		"bucket-flipped-bits", "bucket-listings-replaced", "bucket-listings-short",
		"compaction", "memcached-killed", "headers-damaged", "disk-cache-damaged", "kill-9",
		"reload-storm", "clients-stop-reading"})
	if err != nil {
		t.Fatal(err)
	}
	results, err := w.rounds(t.Context(), faults)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(r.wrongs) > 0 {
			t.Errorf("%s: %s", r.fault, strings.Join(r.wrongs, "\n"))
		}
	}

	// Expect other answers and run again: that must fail, because a comparison that accepts
	// everything would have passed all of the above.
	for i := range w.want {
		w.want[i].content++
	}
	r, err := w.round(t.Context(), faults[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.wrong == 0 || !failed([]result{r}) {
		t.Errorf("answers that are not the expected ones pass: %+v", r)
	}
}

// TestDiskSoak is the short form of `make soak`.
func TestDiskSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("builds larder and runs it for some seconds")
	}
	memcachedtest.Start(t, memcachedtest.Options{}) // see TestChaos
	c := short()
	c.size, c.questions, c.diskSoak = 4, 200, 6*time.Second
	var out bytes.Buffer
	if err := run(t.Context(), c, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestWrongAnswersAreFound: a run fails for each of these answers.
func TestWrongAnswersAreFound(t *testing.T) {
	series := func(pod string, samples ...byte) *storepb.Series {
		return &storepb.Series{
			Labels: []*storepb.Label{{Name: "pod", Value: pod}},
			Chunks: []*storepb.AggrChunk{
				{MinTime: 1, MaxTime: 2,
					Raw: &storepb.Chunk{Data: samples, Hash: xxhash.Sum64(samples)}}},
		}
	}
	answered := func(list ...*storepb.Series) (a answer, err error) {
		d := digest{all: xxhash.New()}
		for _, s := range list {
			if err = d.add(s); err != nil {
				break
			}
		}
		if err == nil {
			d.endSeries()
		}
		return answer{content: d.all.Sum64(), upTo: d.upTo, size: len(d.upTo)}, err
	}
	want, err := answered(series("a", 1), series("b", 2), series("c", 3))
	if err != nil {
		t.Fatal(err)
	}
	broken := status.Error(codes.Aborted, "the bucket is away")
	unsigned := series("b", 2)
	unsigned.Chunks[0].Raw.Hash++
	for _, tc := range []struct {
		name string
		got  []*storepb.Series
		err  error
		says string // "": the answer is right
	}{
		{"the answer", []*storepb.Series{series("a", 1), series("b", 2), series("c", 3)}, nil, ""},
		{"nothing", nil, nil, "an empty success"},
		{"part of it", []*storepb.Series{series("a", 1), series("b", 2)}, nil,
			"2 items that differs from the answer of 3"},
		{"another byte", []*storepb.Series{series("a", 1), series("b", 9), series("c", 3)}, nil,
			"differs from the answer"},
		{"a chunk whose hash is wrong", []*storepb.Series{series("a", 1), unsigned}, nil,
			"has hash"},
		{"an error", nil, broken, ""},
		{"an error after a part", []*storepb.Series{series("a", 1), series("b", 2)}, broken, ""},
		{"an error after another byte", []*storepb.Series{series("a", 1), series("b", 9)}, broken,
			"before the error are not"},
		{"an error after too much", []*storepb.Series{series("a", 1), series("b", 2),
			series("c", 3), series("d", 4)}, broken, "4 series before the error"},
	} {
		got, err := answered(tc.got...)
		if err == nil {
			err = tc.err
		}
		if says := got.differs(want, err); (says == "") != (tc.says == "") ||
			!strings.Contains(says, tc.says) {
			t.Errorf("%s: got %q, want %q", tc.name, says, tc.says)
		}
	}
}

// TestUnknownFault: a misspelt name stops the run before it starts.
func TestUnknownFault(t *testing.T) {
	if err := run(context.Background(), short("bucket-on-fire"), io.Discard); err == nil ||
		!strings.Contains(err.Error(), "bucket-on-fire") {
		t.Errorf("got %v", err)
	}
}
