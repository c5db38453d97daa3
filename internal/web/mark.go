package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/oklog/ulid/v2"
)

// maxMarkBytes bounds the body of a request to mark a block, and its detail in the query. A mark
// must stay below 1 MiB to be read.
const maxMarkBytes = 64 << 10

// serveMark marks a block for deletion or against compaction, if a Marker is set.
func (a *api) serveMark(w http.ResponseWriter, r *http.Request) {
	reject := func(format string, args ...any) {
		respondError(w, http.StatusBadRequest, badData, fmt.Sprintf(format, args...))
	}
	if a.Marker == nil {
		reject("Admin operations are disabled")
		return
	}
	// A page of another site can make a browser post a form with the credentials for this server.
	// After DNS rebinding, Origin and Host are equal, and only the host name shows the attack.
	if err := cmp.Or(a.hosts().check(r), a.origin.Check(r)); err != nil {
		respondError(w, http.StatusForbidden, badData, err.Error())
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxMarkBytes)
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxMarkBytes)
	}
	if err != nil && !errors.Is(err, http.ErrNotMultipart) {
		reject("form: %v", err)
		return
	}
	idText, action, detail := r.FormValue("id"), r.FormValue("action"), r.FormValue("detail")
	if len(detail) > maxMarkBytes { // in the query
		reject("Detail is longer than %d bytes", maxMarkBytes)
		return
	}
	if idText == "" {
		reject("ID cannot be empty")
		return
	}
	if action == "" {
		reject("Action cannot be empty")
		return
	}
	id, err := ulid.ParseStrict(idText)
	if err != nil {
		reject("ULID %q is not valid: %v", idText, err)
		return
	}
	kind := Mark(action)
	if kind != MarkDeletion && kind != MarkNoCompaction {
		reject("not supported marker %s", action)
		return
	}
	written, err := a.Marker.Mark(r.Context(), id, kind, detail)
	switch {
	case errors.Is(err, ErrNoBlock):
		reject("%v", err)
	case err != nil:
		a.Logger.Error(
			"marking block failed", "block", id, "action", action, "client", r.RemoteAddr,
			"err", err,
		)
		respondError(w, http.StatusInternalServerError, internal, err.Error())
	default:
		a.Logger.Info(
			"block marked", "block", id, "action", action, "detail", detail, "client", r.RemoteAddr,
			"was_marked", !written,
		)
		w.WriteHeader(http.StatusNoContent)
	}
}
