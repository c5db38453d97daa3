package web

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
)

// Matcher is a matcher of a series selector. Op is =, !=, =~ or !~.
type Matcher struct{ Name, Op, Value string }

const metricName = "__name__"

// parseSelector parses a series selector such as up{job="a"}. It does not compile expressions,
// because the store measures them first.
func parseSelector(s string) (ms []Matcher, err error) {
	lex := parser.Lex(s)
	var it parser.Item
	next := func() parser.ItemType {
		lex.NextItem(&it)
		for it.Typ == parser.COMMENT {
			lex.NextItem(&it)
		}
		if it.Typ == parser.ERROR {
			err = errors.New(it.Val)
		}
		return it.Typ
	}
	if typ := next(); typ == parser.IDENTIFIER || typ == parser.METRIC_IDENTIFIER {
		ms = append(ms, Matcher{metricName, "=", it.Val})
		next()
	}
	if it.Typ == parser.LEFT_BRACE {
		for next(); err == nil && it.Typ != parser.RIGHT_BRACE; {
			m, more := parseMatcher(&it, next)
			if !more {
				return nil, unexpected(err, &it)
			}
			ms = append(ms, m)
			if it.Typ == parser.COMMA {
				next()
			} else if it.Typ != parser.RIGHT_BRACE {
				return nil, unexpected(err, &it)
			}
		}
		if err == nil {
			next()
		}
	}
	switch {
	case err != nil || it.Typ != parser.EOF:
		return nil, unexpected(err, &it)
	case len(ms) == 0:
		return nil, errors.New("it has no matchers")
	}
	return ms, nil
}

// parseMatcher parses a matcher, or the quoted name of a metric. it is the item after it then.
func parseMatcher(it *parser.Item, next func() parser.ItemType) (m Matcher, ok bool) {
	m.Name = it.Val
	quoted := it.Typ == parser.STRING
	switch {
	case quoted:
		var err error
		if m.Name, err = strutil.Unquote(it.Val); err != nil {
			return m, false
		}
	case it.Typ != parser.IDENTIFIER:
		return m, false
	}
	switch next() {
	case parser.EQL, parser.NEQ, parser.EQL_REGEX, parser.NEQ_REGEX:
		m.Op = it.Val
	case parser.COMMA, parser.RIGHT_BRACE:
		return Matcher{metricName, "=", m.Name}, quoted
	default:
		return m, false
	}
	if next() != parser.STRING {
		return m, false
	}
	var err error
	if m.Value, err = strutil.Unquote(it.Val); err != nil {
		return m, false
	}
	next()
	return m, true
}

func unexpected(err error, it *parser.Item) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("unexpected %.40q at byte %d", it.Val, it.Pos)
}
