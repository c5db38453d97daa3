package rawindex

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCopy compares the copy with its original.
func TestCopy(t *testing.T) {
	original, err := os.ReadFile(
		filepath.Join("..", "..", "..", "benchmarks", "rawindex", "rawindex.go"),
	)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("rawindex.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(original, here) {
		t.Error("rawindex.go differs from benchmarks/rawindex/rawindex.go: change both")
	}
}
