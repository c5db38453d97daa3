package config

import "time"

// Caches is the configuration of all caches. Flags fill the Amounts of Memory first. Then call
// ApplyFlags, UseIndexCache and UseBucketCache, in this order, and Memory.Fit last.
type Caches struct {
	Memory Memory
	// Uncached marks the kinds that are cached neither in memory nor in memcached.
	Uncached [Kinds]bool
	// IndexRemote and ChunkRemote configure memcached below a cache. They are nil without it.
	IndexRemote, ChunkRemote *Memcached
	// Notes is what the start logs about flags and keys that do not do what they say.
	Notes []Note
}

// ApplyFlags marks the kinds whose flag is 0 as uncached.
func (c *Caches) ApplyFlags() {
	m := &c.Memory
	c.Uncached[ExpandedPostings] = m.Postings.Given && m.Postings.Bytes == 0
	c.Uncached[SeriesSets] = m.Series.Given && m.Series.Bytes == 0
}

// UseIndexCache applies the document of --index-cache.config. The document replaces
// --index-cache-size, same as in Thanos. flag names the source of the document in notes. now is the
// time at which certificates must be valid.
func (c *Caches) UseIndexCache(flag string, document []byte, now time.Time) error {
	s, err := parseIndexCache(flag, document)
	if err != nil {
		return err
	}
	m := &c.Memory
	if m.Index.Given {
		c.Notes = append(c.Notes, Note{
			Msg: NoEffect, Flag: "--index-cache-size", Why: flag + " is given",
		})
	}
	m.Index = Amount{From: flag + " " + s.maxBytesKey}
	if s.maxBytes != nil {
		m.Index.Bytes, m.Index.Given = *s.maxBytes, true
	}
	for _, k := range s.without {
		m.Off[k], c.Uncached[k] = true, true
	}
	if !s.memory {
		m.Off[IndexPages], m.Off[ExpandedPostings] = true, true
	}
	c.noteUnused(flag, ExpandedPostings, &m.Postings, &s)
	c.noteUnused(flag, SeriesSets, &m.Series, &s)
	if s.remote != nil {
		if err := s.remote.check(&m.Page[IndexPages], now); err != nil {
			return err
		}
		c.IndexRemote, m.IndexWrites = s.remote, &s.remote.writes
	}
	c.Notes = append(c.Notes, s.notes...)
	return nil
}

// noteUnused adds a note if the user gave an amount for a kind that is not cached in memory.
func (c *Caches) noteUnused(flag string, k Kind, own *Amount, s *cacheSettings) {
	if !own.Given || own.Bytes == 0 || !c.Memory.Off[k] {
		return
	}
	why := flag + " has them in memcached alone, see type " + cacheTiered
	if c.Uncached[k] {
		why = flag + " leaves them out of enabled_items"
	}
	s.notes = append(s.notes, Note{Msg: NoEffect, Flag: own.From, Why: why})
}

// UseBucketCache applies the document of --store.caching-bucket.config. --chunk-cache-size and
// --chunk-cache.page-size take precedence over the document, because they are larder's own: a
// command line for Thanos does not have them. flag and now are as for UseIndexCache.
func (c *Caches) UseBucketCache(flag string, document []byte, now time.Time) error {
	s, err := parseBucketCache(flag, document)
	if err != nil {
		return err
	}
	m := &c.Memory
	switch {
	case !s.memory:
		if m.Off[ChunkPages] = true; m.Chunks.Given {
			s.notes = append(s.notes, Note{
				Msg: NoEffect, Flag: m.Chunks.From,
				Why: flag + " has chunk pages in memcached alone, see type " + cacheTiered,
			})
		}
	case s.maxBytes != nil && m.Chunks.Given:
		s.ignore(flag, s.maxBytesKey, true, m.Chunks.From+" is given")
	case s.maxBytes != nil:
		m.Chunks = Amount{*s.maxBytes, true, flag + " " + s.maxBytesKey}
	}
	switch page := &m.Page[ChunkPages]; {
	case s.pageSize != nil && page.Given:
		s.ignore(flag, "chunk_subrange_size", true, page.From+" is given")
	case s.pageSize != nil:
		*page = Amount{*s.pageSize, true, flag + " chunk_subrange_size"}
	}
	if s.remote != nil {
		if err := s.remote.check(&m.Page[ChunkPages], now); err != nil {
			return err
		}
		c.ChunkRemote, m.ChunkWrites = s.remote, &s.remote.writes
	}
	c.Notes = append(c.Notes, s.notes...)
	return nil
}
