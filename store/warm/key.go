package warm

import (
	"encoding/binary"
	"errors"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/postings"
	"larder/store/storepb"
)

// appendKey appends the key of a matcher set with removed labels: the labels by
// postings.AppendNames, then the matchers by postings.AppendCanonical.
func appendKey(dst []byte, matchers []*labels.Matcher, without []string) []byte {
	return postings.AppendCanonical(postings.AppendNames(dst, without), matchers)
}

var errKey = errors.New("not a matcher set")

// parseKey is the reverse of appendKey.
func parseKey(key string) (ms []*storepb.LabelMatcher, without []string, err error) {
	d := decoder{data: []byte(key)}
	n := d.uvarint()
	for i := uint64(0); i < n && !d.bad; i++ {
		without = append(without, string(d.bytes()))
	}
	for len(d.data) > 0 && !d.bad {
		m := &storepb.LabelMatcher{}
		switch labels.MatchType(d.byte()) {
		case labels.MatchEqual:
			m.Type = storepb.LabelMatcher_EQ
		case labels.MatchNotEqual:
			m.Type = storepb.LabelMatcher_NEQ
		case labels.MatchRegexp:
			m.Type = storepb.LabelMatcher_RE
		case labels.MatchNotRegexp:
			m.Type = storepb.LabelMatcher_NRE
		default:
			d.bad = true
		}
		m.Name, m.Value = string(d.bytes()), string(d.bytes())
		ms = append(ms, m)
	}
	if d.bad || len(ms) == 0 {
		return nil, nil, errKey
	}
	return ms, without, nil
}

// decoder decodes untrusted bytes. After an error bad is set and all results are empty.
type decoder struct {
	data []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.bad, d.data = true, nil
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) next(n uint64) []byte {
	if n > uint64(len(d.data)) {
		d.bad, d.data = true, nil
		return nil
	}
	out := d.data[:n]
	d.data = d.data[n:]
	return out
}

// bytes decodes a length and returns that many bytes.
func (d *decoder) bytes() []byte { return d.next(d.uvarint()) }

func (d *decoder) byte() byte {
	if b := d.next(1); len(b) == 1 {
		return b[0]
	}
	return 0
}
