package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"go.yaml.in/yaml/v2"

	"larder/internal/memcached"
	"larder/internal/yamldoc"
)

// Thanos configures its caches by two documents of one shape: type, config (which depends on the type), and keys of the cache.
// What they say is reduced here to what larder's caches can be told.

// cacheSettings is what such a document comes to. A size that is not given is nil.
type cacheSettings struct {
	maxBytes, pageSize *int64
	// maxBytesKey is the key that gives maxBytes.
	maxBytesKey string
	// memory says whether pages are kept in the process, remote what is kept in memcached, nil for nothing.
	memory bool
	remote *Memcached
	// without are the kinds that the document leaves out.
	without []Kind
	// notes are the keys that were accepted without effect, or with another effect than they say.
	notes []Note
}

// Note is something that the user gave and that is not taken literally. It is logged once.
type Note struct{ Msg, Flag, Key, Why string }

// The messages of notes.
const (
	NoEffect   = "flag accepted without effect"
	Adjusted   = "flag accepted, its value adjusted"
	Deprecated = "flag is deprecated"
)

// Log writes the note to the log.
func (n Note) Log(logger *slog.Logger) {
	attrs := []any{"flag", n.Flag}
	if n.Key != "" {
		attrs = append(attrs, "key", n.Key)
	}
	logger.Info(n.Msg, append(attrs, "why", n.Why)...)
}

// The types of caches: Thanos's, and TIERED, which is larder's own: memory over memcached.
const (
	cacheInMemory   = "IN-MEMORY"
	cacheMemcached  = "MEMCACHED"
	cacheTiered     = "TIERED"
	cacheRedis      = "REDIS"
	cacheGroupcache = "GROUPCACHE"
)

// The items of Thanos's index cache.
const (
	itemPostings         = "Postings"
	itemSeries           = "Series"
	itemExpandedPostings = "ExpandedPostings"
)

// indexCacheDoc is --index-cache.config. Its keys are pointers where it matters whether they were given.
type indexCacheDoc struct {
	Type         string         `yaml:"type"`
	Config       any            `yaml:"config"`
	EnabledItems []string       `yaml:"enabled_items"`
	TTL          *time.Duration `yaml:"ttl"`
}

// bucketCacheDoc is --store.caching-bucket.config.
type bucketCacheDoc struct {
	Type                      string         `yaml:"type"`
	Config                    any            `yaml:"config"`
	ChunkSubrangeSize         *int64         `yaml:"chunk_subrange_size"`
	MaxChunksGetRangeRequests *int           `yaml:"max_chunks_get_range_requests"`
	ChunkObjectAttrsTTL       *time.Duration `yaml:"chunk_object_attrs_ttl"`
	ChunkSubrangeTTL          *time.Duration `yaml:"chunk_subrange_ttl"`
	BlocksIterTTL             *time.Duration `yaml:"blocks_iter_ttl"`
	MetafileExistsTTL         *time.Duration `yaml:"metafile_exists_ttl"`
	MetafileDoesntExistTTL    *time.Duration `yaml:"metafile_doesnt_exist_ttl"`
	MetafileContentTTL        *time.Duration `yaml:"metafile_content_ttl"`
	MetafileMaxSize           *string        `yaml:"metafile_max_size"`
}

// inMemoryDoc is the config of type IN-MEMORY, the same in both.
type inMemoryDoc struct {
	MaxSize     *string `yaml:"max_size"`
	MaxItemSize *string `yaml:"max_item_size"`
}

// tieredDoc is the config of type TIERED, the same in both.
type tieredDoc struct {
	InMemory  any `yaml:"in_memory"`
	Memcached any `yaml:"memcached"`
}

// yamlSize reads bytes, written as in flags. A key that is not there is nil.
func yamlSize(key string, text *string) (*int64, error) {
	if text == nil {
		return nil, nil
	}
	n, err := ParseSize(*text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &n, nil
}

// nested reads a part of a document whose shape another part decides.
func nested(place string, part, into any) error {
	b, err := yaml.Marshal(part)
	if err == nil {
		err = yaml.UnmarshalStrict(b, into)
	}
	if err == nil {
		return nil
	}
	return partError{fmt.Errorf("%s: %w", place, err)}
}

// partError is what is wrong with the shape of a part of a document. Its lines are those of the
// part's own text: cacheShape explains it.
type partError struct{ error }

// IndexCacheShape is the shape of the index cache's document of a type.
func IndexCacheShape(kind string) yamldoc.Shape { return cacheShape(indexCacheDoc{}, kind) }

// BucketCacheShape is the shape of the caching bucket's document of a type.
func BucketCacheShape(kind string) yamldoc.Shape { return cacheShape(bucketCacheDoc{}, kind) }

// cacheShape is what the document of a cache is decoded into.
func cacheShape(doc any, kind string) yamldoc.Shape {
	parts := map[string]any{}
	switch strings.ToUpper(kind) {
	case cacheInMemory:
		parts["config"] = inMemoryDoc{}
	case cacheMemcached:
		parts["config"] = memcachedDoc{}
	case cacheTiered:
		parts["config"], parts["config.in_memory"], parts["config.memcached"] = tieredDoc{}, inMemoryDoc{}, memcachedDoc{}
	}
	return yamldoc.Shape{Of: doc, Parts: parts}
}

// explainPart adds line and key to the error of a part.
func explainPart(b []byte, doc any, kind string, err error) error {
	if part := (partError{}); errors.As(err, &part) {
		return cacheShape(doc, kind).Explain(b, err)
	}
	return err
}

// parseIndexCache reads the document of the index cache. flag is what the notes name.
func parseIndexCache(flag string, b []byte) (cacheSettings, error) {
	var doc indexCacheDoc
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return cacheSettings{}, cacheShape(doc, doc.Type).Explain(b, err)
	}
	var s cacheSettings
	if err := s.backend(flag, doc.Type, doc.Config, "--index-cache-size"); err != nil {
		return s, explainPart(b, doc, doc.Type, err)
	}
	if err := s.items(flag, doc.EnabledItems); err != nil {
		return s, err
	}
	return s, s.ttl(flag, "ttl", doc.TTL)
}

// items leaves out the kinds that are not asked for.
func (s *cacheSettings) items(flag string, enabled []string) error {
	for _, item := range enabled {
		if known := []string{itemPostings, itemSeries, itemExpandedPostings}; !slices.Contains(known, item) {
			return fmt.Errorf("enabled_items: got %q, want some of %s", item, strings.Join(known, ", "))
		}
	}
	if len(enabled) == 0 {
		return nil
	}
	postings, series := slices.Contains(enabled, itemPostings), slices.Contains(enabled, itemSeries)
	if !postings && !series {
		s.without = append(s.without, IndexPages)
	}
	if !slices.Contains(enabled, itemExpandedPostings) {
		s.without = append(s.without, ExpandedPostings)
	}
	if !series {
		s.without = append(s.without, SeriesSets)
	}
	if postings != series {
		s.notes = append(s.notes, Note{Adjusted, flag, "enabled_items", "pages of the index hold postings and series alike: both are kept"})
	}
	return nil
}

// ttl reads how long memcached keeps what it is given.
func (s *cacheSettings) ttl(flag, key string, ttl *time.Duration) error {
	switch {
	case ttl == nil:
	case s.remote == nil:
		s.note(flag, key, true, "blocks do not change, so that nothing in memory has to expire")
	case *ttl < 0:
		return fmt.Errorf("%s: %s is negative", key, *ttl)
	case *ttl > memcached.LongestTTL:
		return fmt.Errorf("%s: %s is above %s: memcached's clock ends", key, *ttl, memcached.LongestTTL)
	case *ttl > 0: // 0 is the default, as in Thanos
		s.remote.Options.TTL = max(*ttl, time.Second) // memcached's unit
	}
	return nil
}

// parseBucketCache reads the document of the caching bucket.
func parseBucketCache(flag string, b []byte) (cacheSettings, error) {
	var doc bucketCacheDoc
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return cacheSettings{}, cacheShape(doc, doc.Type).Explain(b, err)
	}
	var s cacheSettings
	if err := s.backend(flag, doc.Type, doc.Config, "--chunk-cache-size"); err != nil {
		return s, explainPart(b, doc, doc.Type, err)
	}
	if given := doc.ChunkSubrangeSize; given != nil {
		if *given <= 0 {
			return s, fmt.Errorf("chunk_subrange_size: %d must be above zero", *given)
		}
		near := nearestPageSize(*given)
		s.pageSize = &near
		if near != *given {
			s.notes = append(s.notes, Note{Adjusted, flag, "chunk_subrange_size", "pages are a power of two: " + units.Base2Bytes(near).String()})
		}
	}
	if _, err := yamlSize("metafile_max_size", doc.MetafileMaxSize); err != nil {
		return s, err
	}
	if err := s.ttl(flag, "chunk_subrange_ttl", doc.ChunkSubrangeTTL); err != nil {
		return s, err
	}
	const (
		planned = "reads are joined by the bytes that this wastes"
		sizes   = "sizes of chunk files come from meta.json and listings"
		catalog = "metadata is looked at by each sync, see --sync-block-duration"
	)
	s.note(flag, "max_chunks_get_range_requests", doc.MaxChunksGetRangeRequests != nil, planned)
	s.note(flag, "chunk_object_attrs_ttl", doc.ChunkObjectAttrsTTL != nil, sizes)
	s.note(flag, "blocks_iter_ttl", doc.BlocksIterTTL != nil, catalog)
	s.note(flag, "metafile_exists_ttl", doc.MetafileExistsTTL != nil, catalog)
	s.note(flag, "metafile_doesnt_exist_ttl", doc.MetafileDoesntExistTTL != nil, catalog)
	s.note(flag, "metafile_content_ttl", doc.MetafileContentTTL != nil, catalog)
	s.note(flag, "metafile_max_size", doc.MetafileMaxSize != nil, catalog)
	return s, nil
}

// backend reads what holds the cache. sizeFlag is what to use instead of a type that is not there.
func (s *cacheSettings) backend(flag, kind string, config any, sizeFlag string) error {
	const known = cacheInMemory + ", " + cacheMemcached + " or " + cacheTiered
	switch strings.ToUpper(kind) {
	case cacheInMemory:
		return s.inMemory(flag, "config", "", config)
	case cacheMemcached:
		return s.memcached(flag, "config", "", config)
	case cacheTiered:
		var doc tieredDoc
		if err := nested("config", config, &doc); err != nil {
			return err
		}
		if doc.Memcached == nil {
			return errors.New("config: memcached is missing: its addresses are needed")
		}
		if err := s.inMemory(flag, "config: in_memory", "in_memory.", doc.InMemory); err != nil {
			return err
		}
		return s.memcached(flag, "config: memcached", "memcached.", doc.Memcached)
	case cacheRedis, cacheGroupcache:
		return fmt.Errorf("type %s is not supported: use type %s, or leave the flag out and set %s", kind, known, sizeFlag)
	case "":
		return errors.New("type is missing")
	}
	return fmt.Errorf("type %s is not known, want %s", kind, known)
}

// inMemory reads the config of a cache in memory, which stands at a place in the document. prefix precedes its keys in notes.
func (s *cacheSettings) inMemory(flag, place, prefix string, config any) error {
	s.memory = true
	var doc inMemoryDoc
	if err := nested(place, config, &doc); err != nil {
		return err
	}
	var err error
	if s.maxBytes, err = yamlSize(prefix+"max_size", doc.MaxSize); err != nil {
		return err
	}
	s.maxBytesKey = prefix + "max_size"
	_, err = yamlSize(prefix+"max_item_size", doc.MaxItemSize)
	s.note(flag, prefix+"max_item_size", doc.MaxItemSize != nil, "pages have one size, and the largest of what else is kept follows from the size of its cache")
	return err
}

func (s *cacheSettings) note(flag, key string, given bool, why string) {
	if given {
		s.notes = append(s.notes, Note{NoEffect, flag, key, why})
	}
}

// nearestPageSize is the page size that is nearest to n.
func nearestPageSize(n int64) int64 {
	p := int64(minPageSize)
	for p < maxPageSize && 2*p-n <= n-p {
		p *= 2
	}
	return p
}

// Caches is what flags and documents say of the caches.
type Caches struct {
	Memory Memory
	// Without are the kinds that are not kept anywhere.
	Without                  [Kinds]bool
	IndexRemote, ChunkRemote *Memcached // nil for none
	Notes                    []Note
}

// LeaveOut leaves out the kinds whose flag is 0. Call it before the documents are used.
func (c *Caches) LeaveOut() {
	for k, own := range map[Kind]*Amount{ExpandedPostings: &c.Memory.Postings, SeriesSets: &c.Memory.Series} {
		c.Without[k] = own.Given && own.Bytes == 0 // not in memcached either
	}
}

// UseIndexCache settles what the document of the index cache says beside flags. As in Thanos, it makes
// --index-cache-size void. flag is what the notes name.
func (c *Caches) UseIndexCache(flag string, b []byte, now time.Time) error {
	s, err := parseIndexCache(flag, b)
	if err == nil {
		err = c.useIndexCache(flag, &s, now)
	}
	return err
}

// UseBucketCache settles what the document of the caching bucket says beside flags. Of larder's own flags, which nobody gives
// by habit, the flag counts.
func (c *Caches) UseBucketCache(flag string, b []byte, now time.Time) error {
	s, err := parseBucketCache(flag, b)
	if err == nil {
		err = c.useBucketCache(flag, &s, now)
	}
	return err
}

func (c *Caches) useIndexCache(flag string, s *cacheSettings, now time.Time) error {
	m := &c.Memory
	if m.Index.Given {
		c.Notes = append(c.Notes, Note{Msg: NoEffect, Flag: "--index-cache-size", Why: flag + " is given"})
	}
	m.Index = Amount{From: flag + " " + s.maxBytesKey}
	if s.maxBytes != nil {
		m.Index.Bytes, m.Index.Given = *s.maxBytes, true
	}
	for _, k := range s.without {
		m.Off[k], c.Without[k] = true, true
	}
	if !s.memory {
		m.Off[IndexPages], m.Off[ExpandedPostings] = true, true
	}
	for _, own := range []struct {
		Kind
		*Amount
	}{{ExpandedPostings, &m.Postings}, {SeriesSets, &m.Series}} {
		switch {
		case !own.Given || own.Bytes == 0 || !m.Off[own.Kind]:
		case c.Without[own.Kind]:
			s.notes = append(s.notes, Note{Msg: NoEffect, Flag: own.From, Why: flag + " leaves them out of enabled_items"})
		default:
			s.notes = append(s.notes, Note{Msg: NoEffect, Flag: own.From, Why: flag + " has them in memcached alone, see type " + cacheTiered})
		}
	}
	if s.remote != nil {
		if err := s.remote.check(&m.Page[IndexPages], now); err != nil {
			return err
		}
		c.IndexRemote, m.IndexWrites = s.remote, &s.remote.writes
	}
	c.Notes = append(c.Notes, s.notes...)
	return nil
}

func (c *Caches) useBucketCache(flag string, s *cacheSettings, now time.Time) error {
	m := &c.Memory
	switch {
	case !s.memory:
		if m.Off[ChunkPages] = true; m.Chunks.Given {
			s.notes = append(s.notes, Note{Msg: NoEffect, Flag: m.Chunks.From, Why: flag + " has chunk pages in memcached alone, see type " + cacheTiered})
		}
	case s.maxBytes != nil && m.Chunks.Given:
		s.note(flag, s.maxBytesKey, true, m.Chunks.From+" is given")
	case s.maxBytes != nil:
		m.Chunks = Amount{*s.maxBytes, true, flag + " " + s.maxBytesKey}
	}
	switch page := &m.Page[ChunkPages]; {
	case s.pageSize != nil && page.Given:
		s.note(flag, "chunk_subrange_size", true, page.From+" is given")
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
