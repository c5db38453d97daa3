package shard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

const (
	// maxCount bounds the number of shards, and so what finding an owner costs.
	maxCount = 1024
	// maxZones bounds the number of zones, and maxZoneBytes the name of each.
	maxZones     = 64
	maxZoneBytes = 253
)

// ID names a member: one ordinal of one zone. Two processes must not have the same ID.
type ID struct {
	Zone    string `json:"zone"`
	Ordinal int    `json:"ordinal"`
}

func (id ID) String() string { return fmt.Sprintf("%s/%d", id.Zone, id.Ordinal) }

// Validate returns an error for an ID that no member can have.
func (id ID) Validate() error {
	switch {
	case id.Zone == "":
		return errors.New("the zone has no name")
	case len(id.Zone) > maxZoneBytes:
		return fmt.Errorf("the name of the zone has %d bytes, want at most %d", len(id.Zone),
			maxZoneBytes)
	case id.Ordinal < 0 || id.Ordinal >= maxCount:
		return fmt.Errorf("ordinal %d is not from 0 to %d", id.Ordinal, maxCount-1)
	}
	return nil
}

// compareIDs orders members by zone, then by ordinal.
func compareIDs(a, b ID) int {
	if a.Zone != b.Zone {
		return strings.Compare(a.Zone, b.Zone)
	}
	return a.Ordinal - b.Ordinal
}

// Config is one epoch: how many shards there are, and in which zones. The zero value is no
// configuration.
type Config struct {
	// Epoch grows with each change of the other fields. It starts at 1; numbers may be skipped.
	Epoch uint64 `json:"epoch"`
	// Count is the number of ordinals in each zone.
	Count int `json:"count"`
	// Zones are the names of the zones, sorted.
	Zones []string `json:"zones"`
}

// Validate returns an error if the configuration is not one that members can take on.
func (c Config) Validate() error {
	switch {
	case c.Epoch == 0:
		return errors.New("epoch is 0: count epochs from 1, and add 1 with each change")
	case c.Count < 1 || c.Count > maxCount:
		return fmt.Errorf("count is %d, want 1 to %d", c.Count, maxCount)
	case len(c.Zones) == 0:
		return errors.New("no zones: name at least one")
	case len(c.Zones) > maxZones:
		return fmt.Errorf("%d zones, want at most %d", len(c.Zones), maxZones)
	case slices.Contains(c.Zones, ""):
		return errors.New("a zone has no name")
	}
	for _, zone := range c.Zones {
		if len(zone) > maxZoneBytes {
			return fmt.Errorf("the name of a zone has %d bytes, want at most %d", len(zone),
				maxZoneBytes)
		}
	}
	for i := 1; i < len(c.Zones); i++ {
		if c.Zones[i-1] >= c.Zones[i] {
			return fmt.Errorf("zones %q and %q are not sorted or not unique",
				c.Zones[i-1], c.Zones[i])
		}
	}
	return nil
}

// IsZero reports whether c is no configuration.
func (c Config) IsZero() bool { return c.Epoch == 0 }

// Equal reports whether both are the same epoch with the same content.
func (c Config) Equal(o Config) bool {
	return c.Epoch == o.Epoch && c.Count == o.Count && slices.Equal(c.Zones, o.Zones)
}

// Has reports whether a member is configured.
func (c Config) Has(id ID) bool {
	return id.Ordinal >= 0 && id.Ordinal < c.Count && slices.Contains(c.Zones, id.Zone)
}

// Owns reports whether a member owns a block.
func (c Config) Owns(id ID, block ulid.ULID) bool {
	return c.Has(id) && Owner(block, c.Count) == id.Ordinal
}

// members returns the members that a or b configures, sorted.
func members(a, b Config) []ID {
	var ids []ID
	for _, c := range []Config{a, b} {
		for _, zone := range c.Zones {
			for ordinal := range c.Count {
				ids = append(ids, ID{Zone: zone, Ordinal: ordinal})
			}
		}
	}
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}
