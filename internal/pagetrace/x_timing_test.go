package pagetrace

import (
	"testing"

	"larder/internal/localfs"
)

// BenchmarkNote records a fetch of 16 pages.
func BenchmarkNote(b *testing.B) {
	r, err := Record(Options{Dir: localfs.At(b.TempDir()), Header: header()})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	pages := make([]int64, 16)
	for b.Loop() {
		for i := range pages {
			pages[i] = int64(i)
		}
		r.Note(1, 5, pages)
	}
}
