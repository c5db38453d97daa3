package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"larder/shard"
)

// Prefix is the path below which Handler serves.
const Prefix = "/-/shard/"

const (
	// maxQuestion bounds the blocks of a question: less than 1 MiB as JSON.
	maxQuestion = 32 << 10
	// maxReport bounds the bytes of a report: as many blocks, and maxAsks clients.
	maxReport = 2 << 20
)

// question is what a member asks another: which of these blocks it serves.
type question struct {
	Blocks []ulid.ULID `json:"blocks"`
	// From says which process asks. Older versions do not.
	From *sender `json:"from,omitempty"`
}

// sender is the process that asks.
type sender struct {
	ID       shard.ID `json:"id"`
	Instance uint64   `json:"instance"`
	Identity
}

// report is the answer to a question.
type report struct {
	shard.Report
	Identity
}

// askReport asks one peer.
func askReport(ctx context.Context, t target) (report, error) {
	var r report
	if len(t.question) > maxQuestion {
		return r, fmt.Errorf("more than %d blocks move to one ordinal", maxQuestion)
	}
	body, err := json.Marshal(question{t.question, &t.from})
	if err != nil {
		return r, err
	}
	if err := call(ctx, t.name.client, http.MethodPost, t.url, body, maxReport, &r); err != nil {
		return r, err
	}
	if err := r.Validate(); err != nil {
		return r, fmt.Errorf("report: %w", err)
	}
	if len(r.Asks) > maxAsks {
		return r, fmt.Errorf("report: %d clients", len(r.Asks))
	}
	return r, nil
}

// ErrNoShards is the answer of a process that serves all blocks.
var ErrNoShards = errors.New("this process has no shards")

// call sends a request and decodes the answer into v. A *[]byte
// gets the body.
func call(
	ctx context.Context, client *http.Client, method, url string, body []byte, limit int64, v any,
) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	raw, isRaw := v.(*[]byte)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return ErrNoShards
	case resp.StatusCode/100 != 2:
		text := strings.TrimSpace(string(answer[:min(len(answer), 1<<10)]))
		if text == "" {
			text = "no text"
		}
		return fmt.Errorf("%s: %s", resp.Status, text)
	case int64(len(answer)) > limit:
		return fmt.Errorf("answer is longer than %d bytes", limit)
	case isRaw:
		*raw = answer
		return nil
	}
	return json.Unmarshal(answer, v)
}

// Heat asks the members of an ordinal, that of the own zone first, what its blocks need warmed. It
// returns the first answer.
func (d *Driver) Heat(ctx context.Context, ordinal int, blocks []ulid.ULID) ([]byte, error) {
	var members []seen
	d.do(ctx, func() {
		for _, s := range d.seen {
			switch {
			case s.id.Ordinal != ordinal:
			case s.id.Zone == d.opts.ID.Zone:
				members = slices.Insert(members, 0, s)
			default:
				members = append(members, s)
			}
		}
	})
	body, err := json.Marshal(question{Blocks: blocks[:min(len(blocks), maxQuestion)]})
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("no member of ordinal %d has reported", ordinal)
	for _, m := range members {
		var heat []byte
		err = call(ctx, m.client, http.MethodPost, m.base+"heat", body, d.opts.MaxHeat, &heat)
		if err == nil {
			return heat, nil
		}
	}
	return nil, err
}

// ForceRequest makes a member do without others for an epoch.
type ForceRequest struct {
	Epoch   uint64     `json:"epoch"`
	Without []shard.ID `json:"without"`
}

// Risk is what force would lose: the blocks that this member would drop without the confirmation of
// each new owner.
type Risk struct {
	Epoch  uint64      `json:"epoch"` // in progress, 0 for none
	Blocks []ulid.ULID `json:"blocks"`
}

// errStopping is the answer of a process that is stopping.
var errStopping = errors.New("the process is starting or stopping")

// Handler serves the paths below Prefix. mayForce decides whether a request may force an epoch; its
// error says why not.
func (d *Driver) Handler(mayForce func(*http.Request) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Prefix+"report", func(w http.ResponseWriter, r *http.Request) {
		var q question
		if !decode(w, r, &q) {
			return
		}
		if len(q.Blocks) > maxQuestion {
			http.Error(w, fmt.Sprintf("more than %d blocks", maxQuestion), http.StatusBadRequest)
			return
		}
		var rep report
		d.answer(w, r, &rep, func() {
			if len(q.Blocks) > 0 {
				d.warmed()
			}
			if q.From != nil {
				d.askedBy(*q.From, r.RemoteAddr)
			}
			d.member.HandleTime(d.now())
			rep = report{d.member.Report(q.Blocks), d.opts.Identity}
		})
	})
	mux.HandleFunc("POST "+Prefix+"heat", func(w http.ResponseWriter, r *http.Request) {
		var q question
		if !decode(w, r, &q) || d.opts.Heat == nil {
			return // an empty answer is no heat
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(d.opts.Heat(q.Blocks)) // fails only if the client has disconnected
	})
	mux.HandleFunc("GET "+Prefix+"status", func(w http.ResponseWriter, r *http.Request) {
		var s Status
		d.answer(w, r, &s, func() { s = d.status() })
	})
	mux.HandleFunc("GET "+Prefix+"at-risk", func(w http.ResponseWriter, r *http.Request) {
		var risk Risk
		d.answer(w, r, &risk, func() {
			_, next := d.member.Epochs()
			risk = Risk{next.Epoch, d.member.AtRisk()}
		})
	})
	mux.HandleFunc("POST "+Prefix+"force", func(w http.ResponseWriter, r *http.Request) {
		if err := mayForce(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		d.serveForce(w, r)
	})
	d.registerDownscale(mux)
	return http.NewCrossOriginProtection().Handler(mux)
}

func (d *Driver) serveForce(w http.ResponseWriter, r *http.Request) {
	var f ForceRequest
	if !decode(w, r, &f) {
		return
	}
	var err error
	ok := d.do(r.Context(), func() {
		risk := d.member.AtRisk()
		if err = d.member.Force(d.now(), f.Epoch, f.Without); err != nil {
			return
		}
		d.metrics.forced.Inc()
		s := d.status()
		d.log.Warn("epoch was forced", "epoch", f.Epoch, "without", f.Without,
			"blocks_at_risk", len(risk), "reporting", s.Reporting(f.Without),
			"client", r.RemoteAddr)
	})
	var s Status
	if ok && err == nil { // after the force is on disk
		ok = d.do(r.Context(), func() { s = d.status() })
	}
	switch {
	case !ok:
		http.Error(w, errStopping.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		send(w, s)
	}
}

// decode decodes the body of a request, which the server bounds. It answers if that fails.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// answer runs f in the goroutine that owns the Member and sends v.
func (d *Driver) answer(w http.ResponseWriter, r *http.Request, v any, f func()) {
	if !d.do(r.Context(), f) {
		http.Error(w, errStopping.Error(), http.StatusServiceUnavailable)
		return
	}
	send(w, v)
}

func send(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // fails only if the client has disconnected
}
