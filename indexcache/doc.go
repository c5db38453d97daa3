// Package indexcache keeps what is read from the indexes of blocks, and what is derived from it.
// Cache reads index files in pages through memory and memcached. Postings keeps expanded postings:
// the series of a block that some matchers select. SeriesSets keeps series sets: the decoded series
// of a block for some matchers. LabelAnswers keeps the answers to label requests. Each kind has an
// allowance of its own, so that none evicts another.
//
// # Kinds
//
// Index pages are aligned pieces (16 KiB by default) of the objects <block>/index, as the bucket
// sent them. Only pages that a request needed are kept, and those that were read between two of
// them. What a local index header holds, symbols and posting offsets, is never read through this
// package.
//
// Expanded postings are written by package postings, even if no series matches. They save a request
// reading and combining posting lists.
//
// Series sets are made by package block and live in the memory of this process only. A request that
// finds its set decodes nothing. SeriesSets also decides when building a set pays. Small filters
// remember which sets were requested recently, and which turned out too large.
//
// Label answers are the label names or values that one block, or all blocks of a request, answer a
// label request with, encoded as they are sent. LabelAnswers keeps them in the memory of this
// process only.
//
// # Keys
//
// Label answers have a SHA-256 of the question and of the number and content of each block. A block
// that joins or leaves changes the key, so that nothing has to be invalidated.
//
// A page has 64 bits in memory: the block's number within this process (24), file number 0 (14),
// page number (26). The catalog never uses a number twice, so that stale entries are never
// requested. A block whose number does not fit is not cached. In memcached, which processes share
// (Options.Remote), a page has the block's ULID and content, file number 0, page size and page
// number. The content is a hash of meta.json and, where the bucket was asked, of the sizes and
// versions of its files, so that a block that is replaced under its ULID has other keys.
//
// Expanded postings have a SHA-256 of the block's ULID and content, the page size, how eagerly they
// were planned, and the canonical matchers. In memory the key is 64 bits of it, and the value
// begins with the whole. Series sets have everything that bears on them, which is compared whole:
// number and ULID of the block, external labels, removed label names, canonical matchers. A number
// belongs to one content.
//
// # Eviction
//
// Allowances include bookkeeping: Options.MaxBytes for pages, Options.PostingsBytes for postings,
// and the arguments of NewSeriesSets and NewLabelAnswers. A third of the allowance of series sets
// is for sets under construction, and for sets that are evicted while they are read. Within a kind,
// package bytecache evicts first what is not requested a second time soon, so that one scan does
// not evict what dashboards use. Entries do not expire, because blocks are immutable.
//
// # Bytes
//
// Pages and series sets are immutable and garbage collected: see package pagecache.
//
// # Locks
//
// SeriesSets.putting is held while a set is put, SeriesSets.mu while readers of a set are counted,
// filter.mu for a look at a filter.
//
// # Accepted risks
//
// The filters are wrong about up to 0.5 % of keys. Such a set is built at its first request, or not
// built for a while; answers do not change.
package indexcache
