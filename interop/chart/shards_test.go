package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestShards: the pods of a zone serve each block once. During a resize each pod serves its blocks
// of the old and of the new number, so that no block is without a pod while pods take over the new
// rules one after another.
func TestShards(t *testing.T) {
	bucket := t.TempDir()
	var all []string
	for i := range 40 {
		ulid := fmt.Sprintf("01HZ%022d", i)
		all = append(all, ulid)
		write(t, filepath.Join(bucket, ulid, "meta.json"), fmt.Appendf(nil, `{
			"ulid": %q, "minTime": %d, "maxTime": %d, "version": 1,
			"stats": {"numSamples": 1, "numSeries": 1, "numChunks": 1},
			"compaction": {"level": 1, "sources": [%q]},
			"thanos": {"labels": {"cluster": "a"}, "downsample": {"resolution": 0},
				"source": "sidecar"}}`,
			ulid, i*7200_000, (i+1)*7200_000, ulid))
	}
	two := served(t, bucket, `{shards: 2}`)
	three := served(t, bucket, `{shards: 3}`)
	for _, shards := range [][][]string{two, three} {
		union := slices.Sorted(slices.Values(slices.Concat(shards...)))
		if !slices.Equal(union, all) {
			t.Errorf(
				"%d shards serve %d blocks, want each of %d once: %v",
				len(shards),
				len(union),
				len(all),
				union,
			)
		}
	}
	for name, resize := range map[string]string{
		"growth":    `{shards: 3, previousShards: 2}`,
		"shrinking": `{shards: 2, previousShards: 3}`,
	} {
		got := served(t, bucket, resize)
		if len(got) != 3 {
			t.Fatalf("%s: %d pods, want 3", name, len(got))
		}
		for i := range got {
			want := map[string]bool{}
			for _, b := range three[i] {
				want[b] = true
			}
			if i < len(two) {
				for _, b := range two[i] {
					want[b] = true
				}
			}
			if !slices.Equal(got[i], slices.Sorted(maps.Keys(want))) {
				t.Errorf(
					"%s: ordinal %d serves %v, of 2 shards %v, of 3 %v",
					name,
					i,
					got[i],
					two[min(i, 1)],
					three[i],
				)
			}
		}
	}
}

// TestReleasesAreNoPeers: the files of two releases have different names of the cluster, so that a
// pod that has got the address of another release's pod is not taken for a peer.
func TestReleasesAreNoPeers(t *testing.T) {
	for _, release := range []string{"weeks", "years"} {
		rendered, err := renderAs(release, required, "sharded: {enabled: true, type: larder}")
		if err != nil {
			t.Fatal(err)
		}
		o, err := decode(texts(rendered))
		if err != nil {
			t.Fatal(err)
		}
		l := layout{objects: o}
		name := release + "-larder"
		text := l.config(name + "-shards").Data["shards.yaml"]
		if want := "\ncluster: thanos/" + name; !strings.Contains(text+"\n", want+"\n") {
			t.Errorf("release %s has no line %q:\n%s", release, want, text)
		}
	}
}

// sharded renders the least layout with shards.
func sharded(t *testing.T, partitioning string) *layout {
	t.Helper()
	rendered, err := render(
		required,
		"sharded: {enabled: true, hashPartitioning: "+partitioning+"}",
	)
	if err != nil {
		t.Fatal(err)
	}
	l := &layout{docs: texts(rendered)}
	if l.objects, err = decode(l.docs); err != nil {
		t.Fatal(err)
	}
	return l
}

// served returns the blocks that the binary serves with the rules of each ordinal, sorted.
func served(t *testing.T, bucket, partitioning string) [][]string {
	t.Helper()
	l := sharded(t, partitioning)
	var out [][]string
	for _, p := range l.pods() {
		r := start(t, l, p, bucket)
		blocks, err := r.blocks(t.Context())
		r.stop(t)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, blocks)
	}
	return out
}

// blocks returns the ids of the blocks that a process serves, sorted.
func (r *running) blocks(ctx context.Context) ([]string, error) {
	var body struct {
		Data struct {
			Blocks []struct {
				ULID string `json:"ulid"`
			} `json:"blocks"`
		} `json:"data"`
	}
	if err := get(ctx, "http://"+r.http+"/api/v1/blocks?view=loaded", &body); err != nil {
		return nil, err
	}
	var out []string
	for _, b := range body.Data.Blocks {
		out = append(out, b.ULID)
	}
	slices.Sort(out)
	return out, nil
}

// get decodes a JSON answer.
func get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
