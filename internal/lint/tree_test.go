package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// goFile is a Go file of the repository.
type goFile struct {
	name string // from the repository's root, with slashes
	pkg  string // its folder, "" for the root
	test bool
	text string
	ast  *ast.File
	fset *token.FileSet
}

func (f *goFile) generated() bool { return strings.HasSuffix(f.name, ".pb.go") }

// pos returns the position of a node for messages.
func (f *goFile) pos(n ast.Node) string {
	return f.name + ":" + strconv.Itoa(f.fset.Position(n.Pos()).Line)
}

// imports returns the paths that the file imports.
func (f *goFile) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser has validated it
		}
		paths = append(paths, p)
	}
	return paths
}

// tree parses every Go file of the repository, including those of interop/, which has a go.mod of
// its own. It skips testdata and hidden folders.
func tree(t *testing.T) []*goFile {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("no repository root where this test expects it: %v", err)
	}
	var files []*goFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() && p != root &&
			(base == "testdata" || strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := &goFile{name: filepath.ToSlash(rel), text: string(text), fset: token.NewFileSet()}
		f.pkg = strings.TrimSuffix(path.Dir(f.name), ".")
		f.test = strings.HasSuffix(f.name, "_test.go")
		const mode = parser.ParseComments | parser.SkipObjectResolution
		if f.ast, err = parser.ParseFile(f.fset, f.name, text, mode); err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found only %d Go files: the rules do not work", len(files))
	}
	return files
}
