package matcher

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// cost is an upper bound of what the regular expression of a matcher costs, by its text and its
// parsed form. Compiling can need ten thousand times the text: \pL is 3 bytes and has 1,318 range
// bounds.
type cost struct {
	text      int   // bytes that are parsed; 0 for a list of values
	repeated  int   // operations and characters once repetitions are expanded; 0 without repetition
	ranges    int   // range bounds in character classes, two per range
	compiled  int64 // bytes that the matcher holds, besides the text
	compiling int64 // bytes that compiling needs meanwhile, besides those of estimate
}

const (
	// maxText bounds the expressions of a request that are not lists of values, in bytes. It is
	// 50,000 addresses with escaped dots. Compiling needs about 200 bytes and 2 µs per byte.
	maxText = 1 << 20
	// maxRepeated bounds the expressions of a request once their repetitions are expanded, which
	// compiling does. 1,300 characters can come to 200,000: a second of a core and 85 MB.
	maxRepeated = 50_000
	// maxRanges bounds the range bounds in all classes of a request: 75 times \pL, or 25,000 times
	// [0-9a-f]. 100,000 bounds need 2 MB, and a third of a second of a core if case is ignored.
	maxRanges = 100_000
	// maxCandidateBytes bounds the strings that Prometheus concatenates to find out whether an
	// expression stands for a few values. The work is quadratic: [ab] 8 times, followed by (c)
	// 10,000 times, would allocate 14 GB.
	maxCandidateBytes = 32 << 20
	// The cost of parsing is not visible in the parsed form. maxCategories bounds classes such as
	// \pL: each needs 11 µs and 13 KB. maxWideRanges bounds ranges that end beyond ASCII: each
	// needs 3 ms if case is ignored.
	maxCategories = 1000
	maxWideRanges = 32
)

// Upper bounds in bytes for each value of a list, byte of text, range bound, and character that
// repetition adds. They were measured while the garbage collector ran all the time.
const (
	compiledPerValue, compiledPerByte, compiledPerRange, compiledPerRepeated = 64, 110, 20, 50

	compilingPerByte, compilingPerRange, compilingPerRepeated = 210, 20, 160

	// compiledPerGroup is for each pair of a group and an operation. Each operation may be a thread
	// of the regexp machine, and each thread stores where every group begins and ends, although no
	// caller asks for it.
	compiledPerGroup = 16
	// compilingPerOperator is for each operator, besides compilingPerByte.
	compilingPerOperator = 240
)

// measure returns the cost of an expression. It parses at most maxText bytes. It fails if the
// expression does not parse or costs more than any request may use.
func measure(expr string) (cost, error) {
	if isList(expr) {
		return cost{compiled: compiledPerValue * int64(1+strings.Count(expr, "|"))}, nil
	}
	if len(expr) > maxText {
		return cost{}, tooMuchText(len(expr))
	}
	if categories, wide := outsideASCII(expr); categories > maxCategories || wide > maxWideRanges {
		return cost{}, fmt.Errorf(
			"%d categories such as \\pL and %d ranges such as [а-я], more than %d and %d",
			categories, wide, maxCategories, maxWideRanges)
	}
	re, err := syntax.Parse(expr, syntax.Perl|syntax.DotNL)
	if err != nil {
		var bad *syntax.Error
		if errors.As(err, &bad) {
			bad.Expr = Clip(bad.Expr)
		}
		return cost{}, err
	}
	var c cost
	size, repeated := c.add(re)
	var tried candidates
	if tried.add(re, 1, 0); tried.bytes > maxCandidateBytes {
		return c, fmt.Errorf(
			"%d bytes of text to find the values that it stands for, more than %d: "+
				"write fewer groups and classes one after another", tried.bytes, maxCandidateBytes)
	}
	if repeated {
		c.repeated = size
	}
	c.text = len(expr)
	c.compiled = compiledPerByte*int64(c.text) + compiledPerRange*int64(c.ranges) +
		compiledPerRepeated*int64(c.repeated) + compiledPerGroup*int64(re.MaxCap())*int64(size)
	c.compiling = compilingPerRange*int64(c.ranges) + compilingPerRepeated*int64(c.repeated)
	return c, nil
}

func tooMuchText(n int) error {
	return fmt.Errorf("regular expressions come to %d bytes, more than %d: "+
		"write values as a|b|c, without special characters, or ask in parts", n, maxText)
}

// add adds the ranges of re. It returns the number of operations and characters of re once
// repetitions are expanded, and whether it has any.
func (c *cost) add(re *syntax.Regexp) (size int, repeated bool) {
	size = 1 + len(re.Rune)
	if re.Op == syntax.OpCharClass {
		c.ranges += len(re.Rune)
	}
	for _, sub := range re.Sub {
		n, again := c.add(sub)
		size, repeated = size+n, repeated || again
	}
	if re.Op == syntax.OpRepeat {
		size, repeated = size*max(re.Min, re.Max, 1), true
	}
	return size, repeated
}

// estimate returns an upper bound in bytes of what parsing and compiling an expression needs
// meanwhile, without its repetitions and classes. It reads the text only.
func estimate(expr string) int64 {
	n := 0
	for i := range len(expr) {
		if expr[i] == '|' || strings.IndexByte(operators, expr[i]) >= 0 {
			n++
		}
	}
	return compilingPerByte*int64(len(expr)) + compilingPerOperator*int64(n)
}

// operators are the bytes with a meaning of their own, except |.
const operators = `\.+*?()[]{}^$`

// isList reports whether an expression is a list of values, or one value. Prometheus neither parses
// nor compiles such an expression.
func isList(expr string) bool { return !strings.ContainsAny(expr, operators) }

// ungroup removes a group around a whole list of values. Grafana writes such groups. Expressions
// are anchored, therefore the meaning is the same. It needs a thousandth of the time and memory.
func ungroup(expr string) string {
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

// outsideASCII counts categories such as \pL, and ranges of classes that end beyond ASCII, in the
// text of an expression. It may count too many.
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
			// A class never ends here. Its first ] may be a character, and the ] of an inner class
			// such as [:alpha:] does not end it. Missing a range would be worse than counting one
			// too many.
			class = true
		case '-':
			escaped := next == '\\' && i+2 < len(expr) &&
				(expr[i+2] == 'x' || '0' <= expr[i+2] && expr[i+2] <= '7')
			if class && (next >= utf8.RuneSelf || escaped) {
				wide++
			}
		}
	}
	return categories, wide
}
