package indexcache

import (
	"encoding/binary"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
)

const (
	// answersName is the name of the cache of label answers in metrics.
	answersName = "label_answers"
	// answerShare is the part of the limit that one answer may use, as 1/n.
	answerShare = 8
	// expectedAnswerBytes is the usual size of an answer: some hundred names or values.
	expectedAnswerBytes = 4 << 10
	// answerOverhead is the size of a LabelAnswer without its strings.
	answerOverhead = 128
)

// AnswerKey identifies a label answer: a SHA-256 of all that it depends on.
type AnswerKey [32]byte

// LabelAnswer is the answer of one block, or of several, to a question about labels. It is
// immutable.
type LabelAnswer struct {
	// Strings are the label names or values: sorted, each once, encoded as a message of the
	// StoreAPI carries them (store/storepb).
	Strings []byte
	// Hints are the encoded hints of the message. Only an answer of several blocks has them.
	Hints []byte

	// Each request that gets the answer is charged for these, because limits must not depend on
	// what is cached: matching series, and bytes of the index pages that hold postings and series.
	Series                   int
	PostingBytes, EntryBytes int64
}

// Bytes returns the heap that the answer takes.
func (a *LabelAnswer) Bytes() int64 {
	return answerOverhead + int64(cap(a.Strings)+cap(a.Hints))
}

// LabelAnswers keeps the answers of blocks to questions about labels. It is safe for concurrent
// use. A nil LabelAnswers keeps nothing.
//
// Nothing is ever invalidated: a key names the contents of the blocks that it is about. What leaves
// the bucket is never asked for again, and is evicted.
type LabelAnswers struct {
	values    *bytecache.Values[*keptAnswer]
	maxAnswer int64
}

// keptAnswer carries its whole key, because the cache knows only 64 bits of it.
type keptAnswer struct {
	key    AnswerKey
	answer *LabelAnswer
}

// NewLabelAnswers returns a cache of label answers that uses maxBytes in all; nil if maxBytes is
// not positive. The answer of a label with 10,000 values of 20 bytes takes 0.2 MB, and the largest
// answer that is kept uses an eighth of maxBytes. The cache must be closed.
func NewLabelAnswers(maxBytes int64, reg prometheus.Registerer) *LabelAnswers {
	if maxBytes <= 0 {
		return nil
	}
	l := &LabelAnswers{maxAnswer: maxBytes / answerShare}
	l.values = bytecache.NewValues[*keptAnswer](bytecache.Options{
		MaxBytes:           maxBytes,
		MaxValueBytes:      l.maxAnswer,
		ExpectedValueBytes: expectedAnswerBytes,
		Name:               answersName,
		Registerer:         reg,
	})
	return l
}

func (k *AnswerKey) local() uint64 { return binary.LittleEndian.Uint64(k[:]) }

// Get returns an answer.
func (l *LabelAnswers) Get(k AnswerKey) (*LabelAnswer, bool) {
	if l == nil {
		return nil, false
	}
	v, ok := l.values.Get(k.local())
	if !ok || v.key != k {
		return nil, false
	}
	return v.answer, true
}

// Set offers an answer. It must not change afterwards.
func (l *LabelAnswers) Set(k AnswerKey, a *LabelAnswer) {
	if l != nil {
		l.values.Set(k.local(), &keptAnswer{k, a}, a.Bytes())
	}
}

// MaxAnswerBytes returns the size of the largest answer that is kept.
func (l *LabelAnswers) MaxAnswerBytes() int64 {
	if l == nil {
		return 0
	}
	return l.maxAnswer
}

// Stats returns the figures of the memory that keeps the answers.
func (l *LabelAnswers) Stats() bytecache.Stats {
	if l == nil {
		return bytecache.Stats{}
	}
	return l.values.Stats()
}

// Close drops everything.
func (l *LabelAnswers) Close() {
	if l != nil {
		l.values.Close()
	}
}
