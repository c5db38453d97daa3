package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"larder/internal/redaction"
	"larder/internal/web"
	"larder/store/catalog"
	"larder/store/irregular"
)

// webConfig has the flags of web pages and API.
type webConfig struct {
	disable, disableCORS         bool
	allowedHosts                 []string
	externalPrefix, prefixHeader string
	label                        string
	disableAdmin, enableAdmin    bool
}

func (w *webConfig) flags(f flagger) {
	boolFlag(f, "web.disable", "false", &w.disable,
		"Serve no web pages and no /api/v1/ over HTTP, only probes, metrics and profiles.")
	flag(f, "web.external-prefix", "", &w.externalPrefix, pathPrefix,
		"Path prefix of links and redirects on the web pages, "+
			"for a reverse proxy that removes the prefix from requests. Empty = none.")
	flag(f, "web.prefix-header", "", &w.prefixHeader, text,
		"Name of a request header that holds such a prefix, for instance X-Forwarded-Prefix. "+
			"Ignored if --web.external-prefix is set. "+
			"Use it only behind a proxy that sets the header on every request.")
	boolFlag(f, "web.disable-cors", "false", &w.disableCORS,
		"Do not send the CORS headers that let web pages of every origin read /api/v1/.")
	listFlag(f, "web.allowed-hosts", &w.allowedHosts, web.ParseHost,
		"Host name that clients use for HTTP, such as that of an ingress; *.example.com for all "+
			"names below it, * for every name. May be repeated. Requests with other host names "+
			"to /debug/ and POST /api/v1/blocks/mark are rejected; if this flag is set, those to "+
			"web pages and /api/v1/ are rejected too. Always allowed: IP addresses, names "+
			"without a dot, .localhost, .internal, .svc, .cluster.local, "+
			"the machine's own name.").PlaceHolder("NAME")
	flag(f, "bucket-web-label", "", &w.label, text,
		"External label whose value is the heading of a group of blocks on the web pages. "+
			"Empty = all external labels.")
	boolFlag(f, "disable-admin-operations", "false", &w.disableAdmin,
		"Reject POST /api/v1/blocks/mark. This is the default in larder; "+
			"accepted for compatibility with Thanos.")
	boolFlag(f, "enable-admin-operations", "false", &w.enableAdmin,
		"Allow POST /api/v1/blocks/mark to write deletion-mark.json and no-compact-mark.json into "+
			"the bucket. Every client that can reach the HTTP port can then have blocks deleted: "+
			"set up authentication with --http.config.")
}

func (w *webConfig) check() error {
	if w.enableAdmin && w.disableAdmin {
		return errors.New(
			"--enable-admin-operations and --disable-admin-operations are mutually exclusive",
		)
	}
	return nil
}

// pathPrefix parses a path, or a URL of which only the path is used.
func pathPrefix(s string) (string, error) {
	if _, err := url.Parse(s); err != nil {
		return "", fmt.Errorf("%q is not a path: %w", redaction.Address(s), errors.Unwrap(err))
	}
	return s, nil
}

// shownBlocks provides the blocks of the catalog to the web pages.
type shownBlocks struct {
	catalog   *catalog.Catalog
	irregular *irregular.Blocks
}

func (s shownBlocks) Document(id ulid.ULID) ([]byte, error) { return s.catalog.Document(id) }

func (s shownBlocks) Snapshot() web.Snapshot {
	view, status := s.catalog.View(), s.catalog.Status()
	snap := web.Snapshot{
		Blocks: make([]web.Block, 0, len(view.Blocks)), FromDisk: view.FromDisk,
		SyncedAt: status.At, CompleteAt: status.LastComplete, Err: status.Err,
		States: status.States,
	}
	for _, b := range view.Blocks {
		size := b.IndexSize
		for _, f := range b.ChunkFiles {
			size += f.Size
		}
		found, _ := s.irregular.What(b.ID, b.Content)
		snap.Blocks = append(snap.Blocks, web.Block{
			ID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Resolution: b.Resolution,
			Labels: b.Labels,
			Level:  b.Level, Sources: b.Sources, Series: b.NumSeries, Chunks: b.NumChunks,
			Size:      size,
			Irregular: found,
		})
	}
	for _, e := range status.Excluded {
		b := e.Block
		snap.Excluded = append(snap.Excluded, web.Excluded{
			Block: web.Block{
				ID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Resolution: b.Resolution,
				Labels: b.Labels, Level: b.Level,
			},
			State: e.State, By: e.By,
		})
	}
	for _, b := range status.Broken {
		snap.Broken = append(snap.Broken, web.Broken{ID: b.ID, State: b.State, Err: b.Err})
	}
	return snap
}

// marker implements web.Marker.
type marker struct{ bucket catalog.MarkBucket }

func (m marker) Mark(
	ctx context.Context, id ulid.ULID, kind web.Mark, details string,
) (bool, error) {
	k := catalog.MarkDeletion
	if kind == web.MarkNoCompaction {
		k = catalog.MarkNoCompaction
	}
	written, err := catalog.WriteMark(ctx, m.bucket, id, k, details, time.Now())
	if errors.Is(err, catalog.ErrNoBlock) {
		err = fmt.Errorf("block %s: %w", id, web.ErrNoBlock)
	}
	return written, err
}

// shownFlags returns the flags of a command for /api/v1/status/flags. It hides inline YAML, which
// may contain secrets, and the path of the bucket's document, same as Thanos.
func shownFlags(flags []*kingpin.FlagModel) map[string]string {
	names := make(map[string]bool, len(flags))
	for _, f := range flags {
		names[f.Name] = true
	}
	const redacted = redaction.Mark
	shown := make(map[string]string, len(flags))
	for _, f := range flags {
		v := f.Value.String()
		inline := names[f.Name+"-file"] // the other half of the pair, see content
		switch {
		case f.Name == "objstore.config", f.Name == "objstore.config-file", inline && v != "":
			v = redacted
		case f.Name == "help":
			continue
		default:
			if v = redaction.Text(v); !redaction.Path(v) { // a document given as a name
				v = redacted
			}
		}
		shown[f.Name] = v
	}
	return shown
}
