package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
)

// number writes a value with three significant digits, without an exponent.
func number(x float64) string {
	if x == 0 || math.IsNaN(x) || math.IsInf(x, 0) {
		return "0"
	}
	digits := max(2-int(math.Floor(math.Log10(math.Abs(x)))), 0)
	return strconv.FormatFloat(x, 'f', min(digits, 4), 64)
}

// count writes a whole number with its thousands shortened.
func count(x float64) string {
	switch {
	case x >= 1e6:
		return number(x/1e6) + " M"
	case x >= 1e4:
		return number(x/1e3) + " k"
	}
	return fmt.Sprintf("%.0f", x)
}

// spread writes the median and half of the distance between the quartiles.
func spread(xs []float64) string {
	if len(xs) == 0 {
		return ""
	}
	m := number(stats.Median(xs))
	if len(xs) == 1 {
		return m
	}
	return m + " ±" + number(stats.Spread(xs))
}

// ratio writes how a system's median compares with Thanos's.
func ratio(f, thanos *run.Figure, name string, get func(*run.Figure) []float64) string {
	if thanos == nil || name == server.Thanos || stats.Median(get(thanos)) == 0 {
		return ""
	}
	q := stats.Median(get(f)) / stats.Median(get(thanos))
	if q < 0.1 {
		return strconv.FormatFloat(q, 'g', 2, 64)
	}
	return fmt.Sprintf("%.2f", q)
}

// columns is where lines of prose end.
const columns = 100

// wrap breaks prose into lines.
func wrap(text string) string {
	var out strings.Builder
	n := 0
	for word := range strings.FieldsSeq(text) {
		length := utf8.RuneCountInString(word)
		switch {
		case n == 0:
		case n+1+length > columns:
			out.WriteByte('\n')
			n = 0
		default:
			out.WriteByte(' ')
			n++
		}
		out.WriteString(word)
		n += length
	}
	return out.String()
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
