package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// serveBlocks lists the served blocks with their meta.json. Views other than "loaded" are empty,
// same as in `thanos store`.
//
// It writes the answer block by block, because the answer for tens of thousands of blocks has tens
// of megabytes.
func (a *api) serveBlocks(w http.ResponseWriter, r *http.Request) {
	var snap Snapshot
	if r.URL.Query().Get("view") == "loaded" {
		snap = a.Blocks.Snapshot()
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		return
	}
	out := jsonWriter{w: w}
	out.raw(`{"status":"success","data":{"label":`)
	out.value(a.Label)
	out.raw(`,"blocks":[`)
	unread, firstErr := 0, error(nil)
	for i := range snap.Blocks {
		if out.err != nil {
			return // the client has disconnected
		}
		if i > 0 {
			out.raw(",")
		}
		m, err := metaOf(a.Blocks, &snap.Blocks[i])
		if err != nil {
			if unread++; firstErr == nil {
				firstErr = err
			}
		}
		out.value(m)
	}
	out.raw(`],"refreshedAt":`)
	out.value(snap.SyncedAt.UTC())
	out.raw(`,"err":`)
	out.value(blocksError(snap.Err, unread, firstErr))
	out.raw("}}")
}

// blocksError returns the field err: nil, or why blocks or their fields may be missing.
func blocksError(err error, unread int, firstErr error) *string {
	var s string
	switch {
	case err != nil:
		s = err.Error()
	case unread > 0:
		s = fmt.Sprintf(
			"meta.json of %d blocks cannot be read from the data directory, their entries are incomplete: %v",
			unread, firstErr,
		)
	default:
		return nil
	}
	return &s
}

// jsonWriter writes JSON in pieces. After an error it writes nothing.
type jsonWriter struct {
	w   io.Writer
	err error
}

func (j *jsonWriter) raw(s string) {
	if j.err == nil {
		_, j.err = io.WriteString(j.w, s)
	}
}

func (j *jsonWriter) value(v any) {
	if j.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = j.w.Write(b)
	}
	j.err = err
}

// at converts a time of a block.
func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
