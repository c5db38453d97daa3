package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"go.yaml.in/yaml/v2"
)

// Thanos configures its caches by two documents of one shape: type, config (which depends on the type), and keys of the cache.
// What they say is reduced here to what larder's caches can be told.

// cacheSettings is what such a document comes to. A size that is not given is nil.
type cacheSettings struct {
	maxBytes, pageSize *int64
	// notes are the keys that were accepted without effect, or with another effect than they say.
	notes []note
}

// note is something that the user gave and that is not taken literally. It is logged once.
type note struct{ msg, flag, key, why string }

// The messages of notes.
const (
	noteNoEffect   = "flag accepted without effect"
	noteAdjusted   = "flag accepted, its value adjusted"
	noteDeprecated = "flag is deprecated"
)

func (n note) log(logger *slog.Logger) {
	attrs := []any{"flag", n.flag}
	if n.key != "" {
		attrs = append(attrs, "key", n.key)
	}
	logger.Info(n.msg, append(attrs, "why", n.why)...)
}

// The types of Thanos's caches.
const (
	cacheInMemory   = "IN-MEMORY"
	cacheMemcached  = "MEMCACHED"
	cacheRedis      = "REDIS"
	cacheGroupcache = "GROUPCACHE"
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

// yamlSize reads bytes, written as in flags. A key that is not there is nil.
func yamlSize(key string, text *string) (*int64, error) {
	if text == nil {
		return nil, nil
	}
	n, err := size(*text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &n, nil
}

// parseIndexCache reads the document of the index cache. flag is what the notes name.
func parseIndexCache(flag string, b []byte) (cacheSettings, error) {
	var doc indexCacheDoc
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return cacheSettings{}, err
	}
	// A document without a size means Thanos's size, also for a process that --index-cache-size would give another.
	bytes := int64(250 << 20)
	s := cacheSettings{maxBytes: &bytes}
	if err := s.backend(flag, doc.Type, doc.Config, "--index-cache-size"); err != nil {
		return s, err
	}
	for _, item := range doc.EnabledItems {
		if known := []string{"Postings", "Series", "ExpandedPostings"}; !slices.Contains(known, item) {
			return s, fmt.Errorf("enabled_items: got %q, want some of %s", item, strings.Join(known, ", "))
		}
	}
	s.note(flag, "enabled_items", len(doc.EnabledItems) > 0, "pages of the index hold postings and series alike")
	s.note(flag, "ttl", doc.TTL != nil, "blocks do not change, so that nothing in memory has to expire")
	return s, nil
}

// parseBucketCache reads the document of the caching bucket.
func parseBucketCache(flag string, b []byte) (cacheSettings, error) {
	var doc bucketCacheDoc
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return cacheSettings{}, err
	}
	var s cacheSettings
	if err := s.backend(flag, doc.Type, doc.Config, "--chunk-cache-size"); err != nil {
		return s, err
	}
	if given := doc.ChunkSubrangeSize; given != nil {
		if *given <= 0 {
			return s, fmt.Errorf("chunk_subrange_size: %d must be above zero", *given)
		}
		near := nearestPageSize(*given)
		s.pageSize = &near
		if near != *given {
			s.notes = append(s.notes, note{noteAdjusted, flag, "chunk_subrange_size", "pages are a power of two: " + units.Base2Bytes(near).String()})
		}
	}
	if _, err := yamlSize("metafile_max_size", doc.MetafileMaxSize); err != nil {
		return s, err
	}
	const (
		planned = "reads are joined by the bytes that this wastes"
		sizes   = "sizes of chunk files come from meta.json and listings"
		frozen  = "blocks do not change, so that nothing in memory has to expire"
		catalog = "metadata is looked at by each sync, see --sync-block-duration"
	)
	s.note(flag, "max_chunks_get_range_requests", doc.MaxChunksGetRangeRequests != nil, planned)
	s.note(flag, "chunk_object_attrs_ttl", doc.ChunkObjectAttrsTTL != nil, sizes)
	s.note(flag, "chunk_subrange_ttl", doc.ChunkSubrangeTTL != nil, frozen)
	s.note(flag, "blocks_iter_ttl", doc.BlocksIterTTL != nil, catalog)
	s.note(flag, "metafile_exists_ttl", doc.MetafileExistsTTL != nil, catalog)
	s.note(flag, "metafile_doesnt_exist_ttl", doc.MetafileDoesntExistTTL != nil, catalog)
	s.note(flag, "metafile_content_ttl", doc.MetafileContentTTL != nil, catalog)
	s.note(flag, "metafile_max_size", doc.MetafileMaxSize != nil, catalog)
	return s, nil
}

// backend reads what holds the cache. sizeFlag is what to use instead of a type that is not there.
func (s *cacheSettings) backend(flag, kind string, config any, sizeFlag string) error {
	switch strings.ToUpper(kind) {
	case cacheInMemory:
	case cacheMemcached:
		return fmt.Errorf("type %s is not supported yet: use type %s, or leave the flag out and set %s", kind, cacheInMemory, sizeFlag)
	case cacheRedis, cacheGroupcache:
		return fmt.Errorf("type %s is not supported: use type %s, or leave the flag out and set %s", kind, cacheInMemory, sizeFlag)
	case "":
		return errors.New("type is missing")
	default:
		return fmt.Errorf("type %s is not known, want %s", kind, cacheInMemory)
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	var doc inMemoryDoc
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	given, err := yamlSize("max_size", doc.MaxSize)
	if err != nil {
		return err
	}
	if given != nil {
		s.maxBytes = given
	}
	_, err = yamlSize("max_item_size", doc.MaxItemSize)
	s.note(flag, "max_item_size", doc.MaxItemSize != nil, "all that is kept are pages of one size")
	return err
}

func (s *cacheSettings) note(flag, key string, given bool, why string) {
	if given {
		s.notes = append(s.notes, note{noteNoEffect, flag, key, why})
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

// loadCaches reads both documents and settles what counts beside flags. As in Thanos, the index cache's document makes
// --index-cache-size void. Of larder's own flags, which nobody gives by habit, the flag counts.
func (c *storeConfig) loadCaches() error {
	m := &c.memory
	b, err := c.indexCacheYAML.read()
	if err != nil {
		return err
	}
	if b != nil {
		flag := c.indexCacheYAML.flag()
		s, err := parseIndexCache(flag, b)
		if err != nil {
			return c.indexCacheYAML.wrap(err)
		}
		if m.indexCacheGiven {
			c.notes = append(c.notes, note{msg: noteNoEffect, flag: "--index-cache-size", why: flag + " is given"})
		}
		c.notes = append(c.notes, s.notes...)
		m.indexCache, m.indexCacheGiven, m.indexCacheFrom = *s.maxBytes, true, flag+" max_size"
	}

	if b, err = c.bucketCacheYAML.read(); err != nil || b == nil {
		return err
	}
	flag := c.bucketCacheYAML.flag()
	s, err := parseBucketCache(flag, b)
	if err != nil {
		return c.bucketCacheYAML.wrap(err)
	}
	c.notes = append(c.notes, s.notes...)
	switch {
	case s.maxBytes != nil && m.chunkCacheGiven:
		c.notes = append(c.notes, note{noteNoEffect, flag, "max_size", "--chunk-cache-size is given"})
	case s.maxBytes != nil:
		m.chunkCache, m.chunkCacheGiven, m.chunkCacheFrom = *s.maxBytes, true, flag+" max_size"
	}
	switch {
	case s.pageSize != nil && c.chunkPageSizeGiven:
		c.notes = append(c.notes, note{noteNoEffect, flag, "chunk_subrange_size", "--chunk-cache.page-size is given"})
	case s.pageSize != nil:
		c.chunkPageSize = *s.pageSize
	}
	return nil
}
