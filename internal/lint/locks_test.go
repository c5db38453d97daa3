package lint

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lockPage documents the locks of the process in tables. A row contains `package.Type.field`, what
// the lock guards, and which locks may be taken while it is held.
const lockPage = "docs/locks.md"

// waitTypes are the types of fields that docs/locks.md must name: they block a goroutine until
// another releases them.
var waitTypes = []string{"sync.Mutex", "sync.RWMutex", "sync.Cond", "semaphore.Weighted"}

// inTheProcess reports whether a package is part of the gateway, and not a tool of tests or
// benchmarks.
func inTheProcess(pkg string) bool {
	return !strings.HasPrefix(pkg, "interop") && !strings.HasPrefix(pkg, "benchmarks") &&
		!strings.HasPrefix(pkg, "internal/faultstore") && !strings.HasSuffix(pkg, "test")
}

// typeName writes a type as in source, "" if it has no plain name.
func typeName(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.SelectorExpr:
		if x, ok := t.X.(*ast.Ident); ok {
			return x.Name + "." + t.Sel.Name
		}
	}
	return ""
}

// locksOf returns the names of the locks in a file: fields of structs as package.Type.field,
// variables as package.function.name.
func locksOf(f *goFile) []string {
	var out []string
	add := func(owner string, names []*ast.Ident, typ ast.Expr) {
		kind := typeName(typ)
		if !slices.Contains(waitTypes, kind) {
			return
		}
		if len(names) == 0 { // embedded
			names = []*ast.Ident{ast.NewIdent(kind[strings.Index(kind, ".")+1:])}
		}
		for _, n := range names {
			out = append(out, f.pkg+"."+owner+"."+n.Name)
		}
	}
	for _, d := range f.ast.Decls {
		owner := ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			owner = fn.Name.Name
		}
		var fields func(owner string, s *ast.StructType)
		fields = func(owner string, s *ast.StructType) {
			for _, fl := range s.Fields.List {
				add(owner, fl.Names, fl.Type)
				if inner, ok := fl.Type.(*ast.StructType); ok { // without a name
					fields(owner+"."+fl.Names[0].Name, inner)
				}
			}
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					fields(n.Name.Name, s)
					return false
				}
			case *ast.ValueSpec:
				add(owner, n.Names, n.Type)
			}
			return true
		})
	}
	return out
}

// lockRow is a row of the page's tables.
type lockRow struct {
	name  string
	under []string // the locks that may be taken while it is held
}

func lockRows(t *testing.T) []lockRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(lockPage)))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	var rows []lockRow
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		m := quoted.FindStringSubmatch(cells[1])
		if m == nil {
			continue // the head of the table
		}
		row := lockRow{name: m[1]}
		for _, u := range quoted.FindAllStringSubmatch(cells[3], -1) {
			row.under = append(row.under, u[1])
		}
		rows = append(rows, row)
	}
	return rows
}

// TestLocksAreWrittenDown: docs/locks.md names every lock of the process, and no lock that does not
// exist.
func TestLocksAreWrittenDown(t *testing.T) {
	code := map[string]string{}
	for _, f := range tree(t) {
		if f.test || f.generated() || !inTheProcess(f.pkg) {
			continue
		}
		for _, name := range locksOf(f) {
			code[name] = f.name
		}
	}
	if len(code) < 20 {
		t.Fatalf("found only %d locks: the rule does not work", len(code))
	}
	written := map[string]bool{}
	for _, row := range lockRows(t) {
		if written[row.name] {
			t.Errorf("%s names %s twice", lockPage, row.name)
		}
		written[row.name] = true
		if code[row.name] == "" {
			t.Errorf("%s names %s, which is not in the code", lockPage, row.name)
		}
	}
	for name, file := range code {
		if !written[name] {
			t.Errorf(
				"%s: %s needs a row for %s: what it guards, and what may be taken while it is held",
				file, lockPage, name)
		}
	}
}

// TestLocksHaveAnOrder: no lock may be taken while it is held, not even by way of other locks.
func TestLocksHaveAnOrder(t *testing.T) {
	under := map[string][]string{}
	rows := lockRows(t)
	for _, row := range rows {
		under[row.name] = row.under
	}
	const looking, done = 1, 2
	state := map[string]int{}
	var look func(name string, way []string)
	look = func(name string, way []string) {
		if _, ok := under[name]; !ok {
			t.Errorf("%s: %s may be taken under %s, but has no row", lockPage, name,
				path.Join(way...))
			return
		}
		switch state[name] {
		case looking:
			t.Errorf("%s: a cycle: %s", lockPage, strings.Join(append(way, name), " -> "))
			return
		case done:
			return
		}
		state[name] = looking
		for _, u := range under[name] {
			look(u, append(way, name))
		}
		state[name] = done
	}
	for _, row := range rows {
		look(row.name, nil)
	}
}
