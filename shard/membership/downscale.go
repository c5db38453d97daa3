package membership

import (
	"fmt"
	"net/http"
	"strings"
)

// removable reports whether the process may be removed, and if not, why: neither its own epochs nor
// those of a peer that answers need it.
func (d *Driver) removable() (bool, string) {
	if ok, why := d.member.Released(); !ok {
		return false, why
	}
	state := d.member.State()
	for _, p := range d.seen {
		if p.id != d.member.ID() && !p.state.Settled(state.Current.Epoch) {
			return false, fmt.Sprintf("%s has not ended the change to epoch %d", p.id,
				state.Current.Epoch)
		}
	}
	if silent := d.member.Progress().Silent; len(silent) > 0 {
		return false, "addresses of peers do not answer: " + strings.Join(silent, ", ")
	}
	return true, ""
}

// registerDownscale registers what rollout-operator calls before it removes a pod. Both endpoints
// answer POST with an error until the process may be removed, which makes the operator wait. They
// change nothing, and so there is nothing that DELETE has to undo.
//
// prepare-delayed-downscale also answers since when that is so, in seconds since 1970.
func (d *Driver) registerDownscale(mux *http.ServeMux) {
	prepare := func(w http.ResponseWriter, r *http.Request) {
		var since int64
		var why string
		ok := d.do(r.Context(), func() {
			_, why = d.removable()
			d.noteRelease()
			since = d.released.Unix()
		})
		switch {
		case !ok:
			http.Error(w, errStopping.Error(), http.StatusServiceUnavailable)
		case why != "":
			http.Error(w, "cannot be removed: "+why, http.StatusConflict)
		default:
			send(w, struct {
				Timestamp int64 `json:"timestamp"`
			}{since})
		}
	}
	for _, path := range []string{"prepare-downscale", "prepare-delayed-downscale"} {
		mux.HandleFunc("GET "+Prefix+path, prepare)
		mux.HandleFunc("POST "+Prefix+path, prepare)
		mux.HandleFunc("DELETE "+Prefix+path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
		})
	}
}
