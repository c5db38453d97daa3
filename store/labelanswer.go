package store

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/store/catalog"
	"larder/store/postings"
	"larder/store/storepb"
)

// Answers to label requests are kept twice: that of each block, and that of all blocks of a request
// together. Blocks are immutable, so that a key that names their contents is never out of date.
// After a sync the answers of the blocks that stay are still there.

// labelKeys makes the keys of the answers of a request.
type labelKeys struct {
	query   *labelQuery
	what    question
	sets    map[*catalog.Set]*setQuestion
	scratch []byte
}

// setQuestion is a question as it is put to the blocks of one external label set.
type setQuestion struct {
	matches  bool // whether the external labels match
	matchers []*labels.Matcher
	digest   [sha256.Size]byte // of the question
}

func newLabelKeys(q *labelQuery, what question) *labelKeys {
	return &labelKeys{query: q, what: what, sets: map[*catalog.Set]*setQuestion{}}
}

// of returns the question as it is put to the blocks of a set.
func (k *labelKeys) of(set *catalog.Set) *setQuestion {
	if sq, ok := k.sets[set]; ok {
		return sq
	}
	sq := &setQuestion{}
	k.sets[set] = sq
	if sq.matchers, sq.matches = seriesMatchers(k.query.matchers, set.Labels); !sq.matches {
		return sq
	}
	b := k.what.appendKey(k.scratch[:0])
	b = postings.AppendNames(b, k.query.without)
	b = postings.AppendCanonical(b, sq.matchers)
	sq.digest, k.scratch = sha256.Sum256(b), b
	return sq
}

// appendBlock appends what distinguishes the answer of a block.
func appendBlock(dst []byte, c *labelChoice) []byte {
	dst = append(dst, c.question.digest[:]...)
	dst = binary.BigEndian.AppendUint32(dst, c.meta.Number)
	return binary.BigEndian.AppendUint64(dst, c.meta.Content)
}

// one returns the key of the answer of a whole block.
func (k *labelKeys) one(c *labelChoice) indexcache.AnswerKey {
	k.scratch = appendBlock(append(k.scratch[:0], 'b'), c)
	return sha256.Sum256(k.scratch)
}

// all returns the key of the answer of blocks together. It depends on the time range if a block is
// not answered for as a whole.
func (k *labelKeys) all(blocks []labelChoice) (key indexcache.AnswerKey) {
	h, ranged := sha256.New(), false
	h.Write(k.what.appendKey([]byte{'a'})) // there may be no block
	for i := range blocks {
		c := &blocks[i]
		ranged = ranged || !c.whole
		k.scratch = appendBlock(k.scratch[:0], c)
		h.Write(k.scratch)
	}
	if ranged {
		b := binary.BigEndian.AppendUint64(k.scratch[:0], uint64(k.query.minT))
		h.Write(binary.BigEndian.AppendUint64(b, uint64(k.query.maxT)))
	}
	h.Sum(key[:0])
	return key
}

// hints returns the encoded hints of the answer of blocks.
func (k *labelKeys) hints(blocks []labelChoice) []byte {
	ids := make([]string, len(blocks))
	for i := range blocks {
		ids[i] = blocks[i].meta.ID.String()
	}
	return storepb.AppendLabelHints(nil, k.what.hints(), ids)
}

// chargeLabels charges the request for an answer that was kept, as if it had been found now.
func (r *request) chargeLabels(a *indexcache.LabelAnswer) error {
	if a.Series > 0 {
		if err := r.series.Reserve(uint64(a.Series)); err != nil {
			return err
		}
	}
	if a.PostingBytes > 0 {
		if err := r.postings.Spend(a.PostingBytes, 0); err != nil {
			return err
		}
	}
	if a.EntryBytes > 0 {
		return r.seriesPages.Spend(a.EntryBytes, 0)
	}
	return nil
}

// keepLabels keeps an answer. What is kept has no spare capacity, because that would not be
// accounted for.
func (s *Server) keepLabels(key indexcache.AnswerKey, a indexcache.LabelAnswer) {
	if int64(len(a.Strings)) > s.opts.LabelAnswers.MaxAnswerBytes() {
		return
	}
	a.Strings = clip(a.Strings, cap(a.Strings))
	s.opts.LabelAnswers.Set(key, &a)
}
