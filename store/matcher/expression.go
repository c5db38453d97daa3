package matcher

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// expressionCost is what the regular expression of a matcher costs, as far as its text and its parsed form tell. What compiling takes can be ten
// thousand times its text: \pL are 3 bytes and 1,318 ends of ranges.
type expressionCost struct {
	text    int   // bytes that are parsed; 0 for a list of values
	written int   // operations and characters with repetitions written out; 0 if nothing is repeated
	ranges  int   // ends of ranges in classes of characters
	kept    int64 // bytes that its matcher keeps, at most, besides the text
	passing int64 // bytes that compiling it takes meanwhile, at most, besides what its text does
}

const (
	// maxText bounds the expressions of a request that are no lists of values, in bytes: 50,000 addresses with their dots escaped. Each byte takes some 200
	// while it is compiled, and 2 µs.
	maxText = 1 << 20
	// maxRepetitions bounds the regular expressions of a request once their repetitions are written out, which compiling them does: 1,300
	// characters can come to 200,000, a second of a core and 85 MB.
	maxRepetitions = 50_000
	// maxRanges bounds the ends of ranges in all classes of a request's expressions: 75 times \pL, 25,000 times [0-9a-f]. 100,000 of them are 2 MB, and
	// a third of a second of a core where case does not matter.
	maxRanges = 100_000
	// maxTried bounds the bytes of the strings that are put together to find out whether an expression stands for a few values, which takes the square of
	// its length: (c) 10,000 times after [ab] 8 times is 14 GB.
	maxTried = 32 << 20
	// What parsing alone takes cannot be known from what it comes to. maxCategories bounds classes such as \pL, each 11 µs and 13 KB; maxWideRanges
	// ranges that end beyond ASCII, each 3 ms where case does not matter.
	maxCategories = 1000
	maxWideRanges = 32
)

// What an expression takes at most for each value of a list, byte of its text, end of a range, and character that repeating adds: measured with the collector at
// work all the time.
const (
	keptOfValue, keptOfText, keptOfRange, keptOfRepetition = 64, 110, 20, 50
	passingOfText, passingOfRange, passingOfRepetition     = 210, 20, 160
	// keptOfGroup is for each group and each operation: a thread of the matcher has room for where
	// every group begins and ends, although nothing asks for it, and each operation may be a thread.
	keptOfGroup = 16
	// passingOfOperator is for each byte that stands for no character, besides.
	passingOfOperator = 240
)

// costOf measures an expression, of which no more than maxText bytes are parsed. An error says that it does not parse, or that it costs more than any request
// may.
func costOf(expr string) (expressionCost, error) {
	if isList(expr) {
		return expressionCost{kept: keptOfValue * int64(1+strings.Count(expr, "|"))}, nil
	}
	if len(expr) > maxText {
		return expressionCost{}, tooMuchText(len(expr))
	}
	if categories, wide := outsideASCII(expr); categories > maxCategories || wide > maxWideRanges {
		return expressionCost{}, fmt.Errorf("%d categories such as \\pL and %d ranges such as [а-я], more than %d and %d", categories, wide, maxCategories, maxWideRanges)
	}
	re, err := syntax.Parse(expr, syntax.Perl|syntax.DotNL)
	if err != nil {
		var bad *syntax.Error
		if errors.As(err, &bad) {
			bad.Expr = Clip(bad.Expr)
		}
		return expressionCost{}, err
	}
	var c expressionCost
	written, repeated := c.add(re)
	var t tried
	if t.add(re, 1, 0); t.bytes > maxTried {
		return c, fmt.Errorf("%d bytes of text to find the values that it stands for, more than %d: write fewer groups and classes one after another", t.bytes, maxTried)
	}
	if repeated {
		c.written = written
	}
	c.text = len(expr)
	c.kept = keptOfText*int64(c.text) + keptOfRange*int64(c.ranges) +
		keptOfRepetition*int64(c.written) + keptOfGroup*int64(re.MaxCap())*int64(written)
	c.passing = passingOfRange*int64(c.ranges) + passingOfRepetition*int64(c.written)
	return c, nil
}

func tooMuchText(n int) error {
	return fmt.Errorf("regular expressions come to %d bytes, more than %d: write values as a|b|c, without special characters, or ask in parts", n, maxText)
}

// add adds what re comes to and returns how much it is written out.
func (c *expressionCost) add(re *syntax.Regexp) (written int, repeated bool) {
	written = 1 + len(re.Rune)
	if re.Op == syntax.OpCharClass {
		c.ranges += len(re.Rune)
	}
	for _, sub := range re.Sub {
		n, again := c.add(sub)
		written, repeated = written+n, repeated || again
	}
	if re.Op == syntax.OpRepeat {
		written, repeated = written*max(re.Min, re.Max, 1), true
	}
	return written, repeated
}

// maxValues is how many values a matcher finds that an expression stands for.
const maxValues = 256

// tried adds up the strings that a matcher puts together to find the values that an expression stands for, or more.
type tried struct{ bytes int }

// add adds what trying re takes behind so many values of that length, and returns how many there are then, 0 if there are too many, and how long they are.
func (t *tried) add(re *syntax.Regexp, values, length int) (int, int) {
	switch re.Op {
	case syntax.OpLiteral:
		length += len(string(re.Rune))
	case syntax.OpCharClass:
		n := 0
		for i := 0; i+1 < len(re.Rune) && n <= maxValues; i += 2 {
			n += int(re.Rune[i+1]-re.Rune[i]) + 1
		}
		values, length = values*n, length+utf8.UTFMax
	case syntax.OpAlternate:
		sum, longest := 0, length
		for _, sub := range re.Sub {
			v, l := t.add(sub, values, length)
			sum, longest = sum+v, max(longest, l)
		}
		if sum > maxValues {
			sum = 0
		}
		return sum, longest
	case syntax.OpCapture:
		return t.add(re.Sub[0], values, length)
	case syntax.OpConcat:
		for i, sub := range re.Sub {
			if (i == 0 || i == len(re.Sub)-1) && (sub.Op == syntax.OpStar || sub.Op == syntax.OpPlus || sub.Op == syntax.OpQuest) {
				continue // it may be taken off, and the rest tried
			}
			values, length = t.add(sub, values, length)
		}
		return values, length
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpEmptyMatch:
		return values, length
	default:
		return 0, length
	}
	if values > maxValues {
		values = 0
	}
	t.bytes += values * length
	return values, length
}

// operators are the bytes that stand for something else than themselves.
const operators = `\.+*?()[]{}^$`

// passingBytes is what parsing and compiling an expression takes meanwhile, at most, but for what its repetitions and classes come to.
func passingBytes(expr string) int64 {
	n := 0
	for i := range len(expr) {
		if expr[i] == '|' || strings.IndexByte(operators, expr[i]) >= 0 {
			n++
		}
	}
	return passingOfText*int64(len(expr)) + passingOfOperator*int64(n)
}

// isList reports whether an expression is a list of values, or one, which nothing needs to be parsed or compiled for.
func isList(expr string) bool { return !strings.ContainsAny(expr, operators) }

// withoutGroup returns an expression without a group around the whole of a list of values: Grafana writes one. Expressions are anchored, so that it means
// the same, and it takes a thousandth of the time and the memory.
func withoutGroup(expr string) string {
	inner, ok := strings.CutSuffix(expr, ")")
	if !ok {
		return expr
	}
	if rest, ok := strings.CutPrefix(inner, "(?:"); ok {
		inner = rest
	} else if inner, ok = strings.CutPrefix(inner, "("); !ok {
		return expr
	}
	if !strings.Contains(inner, "|") || !isList(inner) {
		return expr
	}
	return inner
}

// outsideASCII counts, in the text of an expression, the categories such as \pL and the ranges of classes that end beyond ASCII, or more.
func outsideASCII(expr string) (categories, wide int) {
	class := false
	for i := 0; i < len(expr); i++ {
		next := byte(0)
		if i+1 < len(expr) {
			next = expr[i+1]
		}
		switch expr[i] {
		case '\\':
			if next == 'p' || next == 'P' {
				categories++
			}
			i++
		case '[':
			// A class has no end before its second character, and ends of classes within it, such as [:alpha:], are none of its own: so as not to miss
			// a range, one that has begun counts as going on.
			class = true
		case '-':
			if class && (next >= utf8.RuneSelf || next == '\\' && i+2 < len(expr) && (expr[i+2] == 'x' || '0' <= expr[i+2] && expr[i+2] <= '7')) {
				wide++
			}
		}
	}
	return categories, wide
}
