// Package lint holds the rules of this repository that no general linter knows. They are its tests:
// which package may import which, which imports have one place or none, what files look like, how
// lines and words of prose look, which goroutines contain panics, and that documents name only what
// exists. Run them with `go test ./internal/lint`; each failure names the file and says what to do.
// The package contains nothing else. A new package gets its layer in imports_test.go. A new lock
// gets its row in docs/locks.md.
package lint
