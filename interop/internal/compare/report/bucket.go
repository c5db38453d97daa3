package report

import (
	"fmt"
	"io"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
)

// Bucket writes what larder asked of the bucket for each query, one line each, without times. A
// test holds the short form of the comparison to it.
func Bucket(w io.Writer, res *run.Results) {
	fmt.Fprintf(
		w, "%-6s %6s %6s %6s %9s %6s %6s\n",
		"query", "index", "chunks", "meta", "bytes", "trips", "queued",
	)
	for _, r := range res.Rows {
		a := r.Systems[server.Larder].Asked()
		fmt.Fprintf(
			w, "%-6s %6d %6d %6d %9d %6d %6d\n", r.Query, a.Index.Requests, a.Chunks.Requests,
			a.Meta.Requests, a.Bytes(), a.Trips, a.Queued,
		)
	}
}
