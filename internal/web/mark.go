package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/oklog/ulid/v2"
)

// maxMarkBytes bounds the body of a request to mark a block, which is an id, an action and a
// sentence; and the sentence. Marks above 1 MiB are not read.
const maxMarkBytes = 64 << 10

// serveMark marks a block for deletion or against compaction, if that was allowed.
func (a *api) serveMark(w http.ResponseWriter, r *http.Request) {
	refuse := func(format string, args ...any) {
		respondError(w, http.StatusBadRequest, badData, fmt.Sprintf(format, args...))
	}
	if a.Marker == nil {
		refuse("Admin operations are disabled")
		return
	}
	// A page of another site can make a browser post a form, with the credentials that the browser
	// has for this one. If that site's name leads here by now, Origin and Host agree: only the name
	// tells.
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
		refuse("form: %v", err)
		return
	}
	idText, action, detail := r.FormValue("id"), r.FormValue("action"), r.FormValue("detail")
	if len(detail) > maxMarkBytes { // in the query
		refuse("Detail is longer than %d bytes", maxMarkBytes)
		return
	}
	if idText == "" {
		refuse("ID cannot be empty")
		return
	}
	if action == "" {
		refuse("Action cannot be empty")
		return
	}
	id, err := ulid.ParseStrict(idText)
	if err != nil {
		refuse("ULID %q is not valid: %v", idText, err)
		return
	}
	kind := Mark(action)
	if kind != MarkDeletion && kind != MarkNoCompaction {
		refuse("not supported marker %s", action)
		return
	}
	written, err := a.Marker.Mark(r.Context(), id, kind, detail)
	switch {
	case errors.Is(err, ErrNoBlock):
		refuse("%v", err)
	case err != nil:
		a.Logger.Error(
			"block could not be marked", "block", id, "action", action, "client", r.RemoteAddr,
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
