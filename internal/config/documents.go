package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"go.yaml.in/yaml/v2"

	"larder/internal/memcached"
	"larder/internal/yamldoc"
)

// cacheSettings is what a document of Thanos says, reduced to what larder can configure. Both
// documents have a type, a config whose keys depend on the type, and keys of the cache itself.
type cacheSettings struct {
	maxBytes, pageSize *int64 // nil if not given
	// maxBytesKey is the key that gives maxBytes.
	maxBytesKey string
	// memory reports that pages are cached in memory. remote is nil without memcached.
	memory bool
	remote *Memcached
	// without lists the kinds that enabled_items leaves out.
	without []Kind
	// notes lists the keys that have no effect, or another effect than they say.
	notes []Note
}

// The types of caches. TIERED, memory over memcached, is larder's own; the others are Thanos's.
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

// indexCacheDoc is --index-cache.config. A key is a pointer if its absence has a meaning.
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

// inMemoryDoc is the config of type IN-MEMORY of both documents.
type inMemoryDoc struct {
	MaxSize     *string `yaml:"max_size"`
	MaxItemSize *string `yaml:"max_item_size"`
}

// tieredDoc is the config of type TIERED of both documents.
type tieredDoc struct {
	InMemory  any `yaml:"in_memory"`
	Memcached any `yaml:"memcached"`
}

// yamlSize parses the size under a key. It returns nil for an absent key.
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

// nested decodes a part of a document whose shape depends on the type. place names it in errors.
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

// partError reports a wrong shape of a part of a document. Its line numbers count from the
// beginning of the part; explainPart corrects them.
type partError struct{ error }

// IndexCacheShape returns the shape of --index-cache.config for a type of cache.
func IndexCacheShape(kind string) yamldoc.Shape { return cacheShape(indexCacheDoc{}, kind) }

// BucketCacheShape returns the shape of --store.caching-bucket.config for a type of cache.
func BucketCacheShape(kind string) yamldoc.Shape { return cacheShape(bucketCacheDoc{}, kind) }

// cacheShape returns the shape of a document and, by its type, of the parts of config.
func cacheShape(doc any, kind string) yamldoc.Shape {
	parts := map[string]any{}
	switch strings.ToUpper(kind) {
	case cacheInMemory:
		parts["config"] = inMemoryDoc{}
	case cacheMemcached:
		parts["config"] = memcachedDoc{}
	case cacheTiered:
		parts["config"] = tieredDoc{}
		parts["config.in_memory"], parts["config.memcached"] = inMemoryDoc{}, memcachedDoc{}
	}
	return yamldoc.Shape{Of: doc, Parts: parts}
}

// explainPart adds the line and the key to a partError. It returns other errors unchanged.
func explainPart(b []byte, doc any, kind string, err error) error {
	if part := (partError{}); errors.As(err, &part) {
		return cacheShape(doc, kind).Explain(b, err)
	}
	return err
}

// parseIndexCache parses --index-cache.config. flag names the source of the document in notes.
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

// items applies enabled_items. An empty list enables all items.
func (s *cacheSettings) items(flag string, enabled []string) error {
	known := []string{itemPostings, itemSeries, itemExpandedPostings}
	for _, item := range enabled {
		if !slices.Contains(known, item) {
			return fmt.Errorf("enabled_items: got %q, want some of %s",
				item, strings.Join(known, ", "))
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
		s.notes = append(s.notes, Note{
			Adjusted, flag, "enabled_items",
			"pages of the index hold postings and series alike: both are kept",
		})
	}
	return nil
}

// ttl applies the time after which memcached expires values.
func (s *cacheSettings) ttl(flag, key string, ttl *time.Duration) error {
	switch {
	case ttl == nil:
	case s.remote == nil:
		s.ignore(flag, key, true, "blocks do not change, so that nothing in memory has to expire")
	case *ttl < 0:
		return fmt.Errorf("%s: %s is negative", key, *ttl)
	case *ttl > memcached.LongestTTL:
		return fmt.Errorf("%s: %s is above %s: memcached's clock ends",
			key, *ttl, memcached.LongestTTL)
	case *ttl > 0: // 0 is the default, as in Thanos
		s.remote.Options.TTL = max(*ttl, time.Second) // memcached's unit
	}
	return nil
}

// parseBucketCache parses --store.caching-bucket.config. flag names its source in notes.
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
			s.notes = append(s.notes, Note{
				Adjusted, flag, "chunk_subrange_size",
				"pages are a power of two: " + units.Base2Bytes(near).String(),
			})
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
	s.ignore(flag, "max_chunks_get_range_requests", doc.MaxChunksGetRangeRequests != nil, planned)
	s.ignore(flag, "chunk_object_attrs_ttl", doc.ChunkObjectAttrsTTL != nil, sizes)
	s.ignore(flag, "blocks_iter_ttl", doc.BlocksIterTTL != nil, catalog)
	s.ignore(flag, "metafile_exists_ttl", doc.MetafileExistsTTL != nil, catalog)
	s.ignore(flag, "metafile_doesnt_exist_ttl", doc.MetafileDoesntExistTTL != nil, catalog)
	s.ignore(flag, "metafile_content_ttl", doc.MetafileContentTTL != nil, catalog)
	s.ignore(flag, "metafile_max_size", doc.MetafileMaxSize != nil, catalog)
	return s, nil
}

// backend applies type and config. sizeFlag is the flag to use instead of an unsupported type.
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
		return fmt.Errorf("type %s is not supported: use type %s, or leave the flag out and set %s",
			kind, known, sizeFlag)
	case "":
		return errors.New("type is missing")
	}
	return fmt.Errorf("type %s is not known, want %s", kind, known)
}

// inMemory applies the config of a cache in memory. place is where it is in the document, and
// prefix precedes its keys in notes.
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
	s.ignore(flag, prefix+"max_item_size", doc.MaxItemSize != nil,
		"pages have one size, "+
			"and the largest of what else is kept follows from the size of its cache")
	return err
}

// ignore adds a note that a key has no effect, if the key was given.
func (s *cacheSettings) ignore(flag, key string, given bool, why string) {
	if given {
		s.notes = append(s.notes, Note{NoEffect, flag, key, why})
	}
}

// nearestPageSize returns the page size that is nearest to n.
func nearestPageSize(n int64) int64 {
	p := int64(minPageSize)
	for p < maxPageSize && 2*p-n <= n-p {
		p *= 2
	}
	return p
}
