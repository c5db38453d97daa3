package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/sealed"
)

const (
	rulingName = "relabel.json"
	// maxRulingSize bounds the file of a ruling.
	maxRulingSize = 4 << 20
	// maxFormer bounds the former rules in use. More changes within one patience are rare, and the
	// oldest is forgotten.
	maxFormer = 16
)

func rulingFormat() sealed.Format { return sealed.Format{Kind: "relabel", Version: 1} }

// ruling is which rules select blocks: those in use, and former ones whose blocks stay for a while
// because of Options.HashmodPatience. It is immutable.
type ruling struct {
	Rules  []*relabel.Config `json:"rules"`
	Former []formerRules     `json:"former"`
}

// formerRules select blocks until a time.
type formerRules struct {
	Rules []*relabel.Config `json:"rules"`
	Until time.Time         `json:"until"`
}

// changed returns the ruling after the rules have changed. Former rules stay only if nothing but
// the shard of a Hashmod differs. Any other change may exclude blocks that must not be served.
func (r *ruling) changed(
	rules []*relabel.Config, patience time.Duration, now time.Time,
) *ruling {
	out := &ruling{Rules: rules}
	if patience == 0 {
		return out
	}
	former := r.Former
	if !sameRules(r.Rules, rules) {
		if !differsOnlyInShards(r.Rules, rules) {
			return out
		}
		former = append([]formerRules{{r.Rules, now.Add(patience)}}, former...)
	}
	for _, f := range former {
		again := slices.ContainsFunc(out.Former, func(o formerRules) bool {
			return sameRules(o.Rules, f.Rules)
		})
		if !again && !sameRules(f.Rules, rules) && now.Before(f.Until) &&
			len(out.Former) < maxFormer {
			out.Former = append(out.Former, f)
		}
	}
	return out
}

// selector returns the selector of the ruling at a time.
func (r *ruling) selector(now time.Time) selector {
	s := newSelector(r.Rules)
	for _, f := range r.Former {
		if now.Before(f.Until) {
			s.former = append(s.former, f.Rules)
		}
	}
	return s
}

// next returns the earliest time after now at which former rules end, zero if none do.
func (r *ruling) next(now time.Time) (at time.Time) {
	for _, f := range r.Former {
		if now.Before(f.Until) && (at.IsZero() || f.Until.Before(at)) {
			at = f.Until
		}
	}
	return at
}

// loadRules sets the rules at the start. With a patience, the rules of the process before count as
// former ones.
func (c *Catalog) loadRules() {
	c.rules.Store(&ruling{Rules: c.opts.Relabel})
	if c.opts.HashmodPatience == 0 {
		c.forgetRules()
		return
	}
	before, err := c.local.ruling()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, sealed.ErrUnread):
		c.diskFailed("cannot read the relabel rules of an earlier process", err)
	case err != nil:
		c.metrics.damagedCopies.Inc()
		c.noteDamage(err)
		c.log.Warn("saved relabel rules do not verify, starting without them", "err", err)
	default:
		c.rules.Store(before)
	}
	c.changeRules(c.opts.Relabel)
}

// forgetRules removes the rules of an earlier process: with a later patience they would be too old.
func (c *Catalog) forgetRules() {
	if c.local.dir.IsZero() {
		return
	}
	if err := c.local.dir.Remove(rulingName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.diskFailed("cannot remove the saved relabel rules", err)
	}
}

// changeRules replaces the rules, and saves them if there is a patience. Calls must not overlap.
func (c *Catalog) changeRules(rules []*relabel.Config) {
	now := time.Now()
	r := c.rules.Load().changed(rules, c.opts.HashmodPatience, now)
	c.rules.Store(r)
	if c.opts.HashmodPatience == 0 || c.local.dir.IsZero() {
		return
	}
	if at := r.next(now); !at.IsZero() {
		c.log.Info("hashmod rules changed, also serving the blocks of the former ones",
			"former", len(r.Former), "next_end", at.UTC())
	}
	if err := c.local.putRuling(r); err != nil {
		c.diskFailed("cannot save the relabel rules", err)
	}
}

// ruling returns the rules of an earlier process, fs.ErrNotExist if there are none.
func (s *localStore) ruling() (*ruling, error) {
	if s.dir.IsZero() {
		return nil, fs.ErrNotExist
	}
	data, err := rulingFormat().Read(s.dir, rulingName, maxRulingSize)
	if err != nil {
		return nil, err
	}
	r := new(ruling)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", s.dir.Path(rulingName), sealed.ErrDamaged, err)
	}
	for _, rules := range slices.Concat([]formerRules{{Rules: r.Rules}}, r.Former) {
		if err := checkRelabel(rules.Rules, nil); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", s.dir.Path(rulingName), sealed.ErrDamaged, err)
		}
	}
	return r, nil
}

func (s *localStore) putRuling(r *ruling) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(rulingFormat(), s.dir, rulingName, data, true)
}
