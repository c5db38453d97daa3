package matcher

import (
	"regexp/syntax"
	"unicode/utf8"
)

// maxCandidates is the number of values up to which a matcher replaces an expression by the values
// that it stands for.
const maxCandidates = 256

// candidates sums the strings that a matcher concatenates to find these values. The sum is an upper
// bound.
type candidates struct{ bytes int }

// add adds the strings that re makes of a number of prefixes, each of length bytes. It returns the
// number of strings after re, 0 if there are too many, and their length.
func (c *candidates) add(re *syntax.Regexp, prefixes, length int) (int, int) {
	switch re.Op {
	case syntax.OpLiteral:
		length += len(string(re.Rune))
	case syntax.OpCharClass:
		n := 0
		for i := 0; i+1 < len(re.Rune) && n <= maxCandidates; i += 2 {
			n += int(re.Rune[i+1]-re.Rune[i]) + 1
		}
		prefixes, length = prefixes*n, length+utf8.UTFMax
	case syntax.OpAlternate:
		sum, longest := 0, length
		for _, sub := range re.Sub {
			n, l := c.add(sub, prefixes, length)
			sum, longest = sum+n, max(longest, l)
		}
		if sum > maxCandidates {
			sum = 0
		}
		return sum, longest
	case syntax.OpCapture:
		return c.add(re.Sub[0], prefixes, length)
	case syntax.OpConcat:
		for i, sub := range re.Sub {
			if (i == 0 || i == len(re.Sub)-1) &&
				(sub.Op == syntax.OpStar || sub.Op == syntax.OpPlus || sub.Op == syntax.OpQuest) {
				continue // the matcher may remove it and try the rest
			}
			prefixes, length = c.add(sub, prefixes, length)
		}
		return prefixes, length
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpEmptyMatch:
		return prefixes, length
	default:
		return 0, length
	}
	if prefixes > maxCandidates {
		prefixes = 0
	}
	c.bytes += prefixes * length
	return prefixes, length
}
