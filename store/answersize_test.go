package store

import "testing"

// TestAnswerSizeFollowsTheFirstSeries: the first series of an answer tell more about its size than
// the averages of its blocks. What is reserved before them stays the same.
func TestAnswerSizeFollowsTheFirstSeries(t *testing.T) {
	const page = 8 << 10
	estimate := answerSize{chunks: 20 << 20, window: 200 << 20, series: 100 << 10}
	for name, tc := range map[string]struct {
		win    window
		chunks int64
		cold   int64
	}{
		"nothing known": {chunks: 20 << 20, cold: coldWindowBytes},
		"small chunks": {
			win:    window{used: make([]int, 10), bytes: 280 << 10, labels: 50 << 10, pieces: 100},
			chunks: 1500<<10 + 10*page, cold: maxWholeWindow,
		},
		"large chunks": {
			win:    window{used: make([]int, 1), bytes: 2 << 20, labels: 50 << 10, pieces: 50},
			chunks: 20 << 20, cold: coldWindowBytes,
		},
		"only pages that are shared": {
			win:    window{used: make([]int, 10), bytes: 40 << 10, labels: 1 << 10, pieces: 10},
			chunks: 10 * page, cold: maxWholeWindow,
		},
	} {
		size := estimate
		size.measure(&tc.win, 1000, page)
		if size.chunks != tc.chunks || size.cold() != tc.cold {
			t.Errorf("%s: %d bytes of chunks, first window %d; want %d, %d", name, size.chunks,
				size.cold(), tc.chunks, tc.cold)
		}
		if size.first() != estimate.first() {
			t.Errorf("%s: %d bytes are reserved, want %d", name, size.first(), estimate.first())
		}
	}
}
