package yamldoc

import "strings"

// Nearest returns the known name that is most similar to a mistyped one, "" if none is similar.
// Upper and lower case do not count, nor do the separators dot, dash and underscore.
func Nearest(typed string, known []string) string {
	plain := strings.NewReplacer(".", "-", "_", "-")
	typed = plain.Replace(strings.ToLower(typed))
	best, least := "", min(len(typed)/4+2, len(typed))
	for _, name := range known {
		if d := distance(typed, plain.Replace(strings.ToLower(name))); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance returns the number of letters to insert, delete, replace or swap with a neighbour to
// turn a into b.
func distance(a, b string) int {
	// Three rows of the table of distances between prefixes of a and b: the row before the previous
	// one, the previous and the current one.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
