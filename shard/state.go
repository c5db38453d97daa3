package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

const (
	stateFile = "shard.state"
	// maxStateBytes bounds the file. The names of zones and forced members are all that varies.
	maxStateBytes = 1 << 20
)

// stateFormat is the format of the file. The payload is JSON.
func stateFormat() sealed.Format { return sealed.Format{Kind: "shard", Version: 1} }

// State is what a member persists. A field that is zero is absent.
type State struct {
	// Previous came before Current. A member that lost its record starts with it, because peers
	// may still rely on it.
	Previous Config `json:"previous"`
	// Current is the epoch whose blocks the member serves until the drop.
	Current Config `json:"current"`
	// Next is the epoch that the member takes on. It serves the blocks of both.
	Next Config `json:"next"`
	// Committed says that every configured member has persisted Next.
	Committed bool `json:"committed,omitempty"`
	// Forced are the members that the operator overrides for Next.
	Forced []ID `json:"forced,omitempty"`
	// Lost says that the member had no record when it started, and so does not know which epochs it
	// acknowledged before. The next drop ends that.
	Lost bool `json:"lost,omitempty"`
}

// isZero reports whether the state says nothing about epochs.
func (s State) isZero() bool { return s.Current.IsZero() && s.Next.IsZero() }

func (s State) equal(o State) bool {
	return s.Previous.Equal(o.Previous) && s.Current.Equal(o.Current) && s.Next.Equal(o.Next) &&
		s.Committed == o.Committed && s.Lost == o.Lost && slices.Equal(s.Forced, o.Forced)
}

// epoch returns the highest epoch that the state has taken on.
func (s State) epoch() uint64 { return max(s.Current.Epoch, s.Next.Epoch) }

// committed returns the newest configuration that is known to be committed.
func (s State) committed() Config {
	if s.Committed {
		return s.Next
	}
	return s.Current
}

// has reports whether the state has taken on exactly this configuration.
func (s State) has(c Config) bool {
	return !c.IsZero() && (s.Next.Equal(c) || s.Current.Equal(c))
}

// inherited returns the state with which a member starts that learns the epochs from a peer in
// state s. The peer may have dropped what other members still rely on, so the heir goes back to
// Previous and drops it by the same rules.
func (s State) inherited() State {
	if s.Committed || s.Previous.IsZero() {
		return State{
			Previous: s.Previous, Current: s.Current, Next: s.Next, Committed: s.Committed,
		}
	}
	return State{Current: s.Previous, Next: s.Current, Committed: true}
}

// validate returns an error if a member cannot be in this state.
func (s State) validate() error {
	for _, c := range []Config{s.Previous, s.Current, s.Next} {
		if c.IsZero() {
			continue
		}
		if err := c.Validate(); err != nil {
			return err
		}
	}
	switch {
	case s.isZero():
		return errors.New("no epoch")
	case s.Committed && s.Next.IsZero():
		return errors.New("no next epoch, but it is committed")
	case !s.Next.IsZero() && s.Next.Epoch <= s.Current.Epoch:
		return fmt.Errorf("next epoch %d is not above %d", s.Next.Epoch, s.Current.Epoch)
	case !s.Previous.IsZero() && s.Previous.Epoch >= s.Current.Epoch:
		return fmt.Errorf("previous epoch %d is not below %d", s.Previous.Epoch, s.Current.Epoch)
	}
	return nil
}

// LoadState reads the state of the last process. The error is fs.ErrNotExist if there is none. A
// file that does not verify is an error too. The caller starts without a record after any error.
func LoadState(dir localfs.Dir) (State, error) {
	payload, err := stateFormat().Read(dir, stateFile, maxStateBytes)
	if err != nil {
		return State{}, err
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return State{}, fmt.Errorf("%s: %w: %w", dir.Path(stateFile), sealed.ErrDamaged, err)
	}
	if err := s.validate(); err != nil {
		return State{}, fmt.Errorf("%s: %w: %w", dir.Path(stateFile), sealed.ErrDamaged, err)
	}
	return s, nil
}

// SaveState writes the state, synced, because an acknowledgement must survive a crash of the
// machine.
func SaveState(dir localfs.Dir, s State) error {
	payload, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return stateFormat().Write(dir, stateFile, payload, true)
}
