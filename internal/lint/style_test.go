package lint

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const maxLines = 700

func TestFilesAreShort(t *testing.T) {
	for _, f := range tree(t) {
		if n := strings.Count(f.text, "\n"); n > maxLines && !f.generated() {
			t.Errorf("%s has %d lines, more than %d: split it by concept", f.name, n,
				maxLines)
		}
	}
}

// TestPackagesSayWhatTheyAreFor: each package has a doc.go with a package comment. A package of one
// file may have the comment there, and interop/, which is all tests, anywhere. Packages that
// contain only tests need none.
func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	inDoc, anywhere, code := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, f := range tree(t) {
		if !f.test {
			code[f.pkg]++
		}
		if f.ast.Doc != nil {
			anywhere[f.pkg] = true
			inDoc[f.pkg] = inDoc[f.pkg] || path.Base(f.name) == "doc.go"
		}
	}
	for pkg, n := range code {
		freely := n == 1 || strings.HasPrefix(pkg, "interop")
		if n > 0 && !inDoc[pkg] && !(freely && anywhere[pkg]) {
			t.Errorf("%s has no doc.go with a package comment", pkg)
		}
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	// Split into pieces, so that this file passes.
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	for _, f := range tree(t) {
		if m := later.FindStringIndex(f.text); m != nil {
			t.Errorf("%s:%d: %s: do it, or document it as a known limit in docs/", f.name,
				1+strings.Count(f.text[:m[0]], "\n"), f.text[m[0]:m[1]])
		}
	}
}

// TestTestsWaitForEvents: a sleep in a test guesses how fast an unknown machine is. In files that
// use testing/synctest, time is fake and sleeping is allowed.
func TestTestsWaitForEvents(t *testing.T) {
	for _, f := range tree(t) {
		if !f.test {
			continue
		}
		fakeTime := slices.Contains(f.imports(), "testing/synctest")
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if guard, ok := n.(*ast.IfStmt); ok {
					if skippable(guard.Cond) {
						return false
					}
				}
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch id, _ := sel.X.(*ast.Ident); {
				case id == nil:
				case id.Name == "time" && sel.Sel.Name == "Sleep" && !fakeTime:
					t.Errorf("%s: time.Sleep in a test: wait for an event, or use testing/synctest",
						f.pos(sel))
				case id.Name == "t" && strings.HasPrefix(sel.Sel.Name, "Skip") &&
					!strings.HasPrefix(fn.Name.Name, "Fuzz"):
					t.Errorf("%s: a test that skips itself is a test that does not run", f.pos(sel))
				}
				return true
			})
		}
	}
}

// skippable recognises the two conditions under which a test may skip itself: the race detector,
// which distorts allocations and times, and -short.
func skippable(cond ast.Expr) bool {
	switch c := cond.(type) {
	case *ast.Ident:
		return c.Name == "raceEnabled"
	case *ast.BinaryExpr:
		return skippable(c.X) && skippable(c.Y)
	case *ast.CallExpr:
		sel, ok := c.Fun.(*ast.SelectorExpr)
		return ok && sel.Sel.Name == "Short"
	}
	return false
}

// TestNoGlobalState: package variables are constants of types that const does not allow. State that
// can change (a lock, a pool, an atomic, a value set later) belongs to a value that is passed on.
func TestNoGlobalState(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || f.generated() || strings.HasPrefix(f.name, "interop/") {
			continue
		}
		for _, d := range f.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if name.Name != "_" && !embedded(decl) && mutable(spec, i) {
						t.Errorf("%s: package variable %s can change", f.pos(name), name.Name)
					}
				}
			}
		}
	}
}

func embedded(d *ast.GenDecl) bool {
	return d.Doc != nil && strings.Contains(d.Doc.List[len(d.Doc.List)-1].Text, "//go:embed")
}

// mutable recognises the obvious kinds of mutable variables.
func mutable(spec *ast.ValueSpec, i int) bool {
	if i >= len(spec.Values) {
		return true // filled later
	}
	switch v := spec.Values[i].(type) {
	case *ast.UnaryExpr:
		return v.Op == token.AND
	case *ast.CallExpr:
		fun, ok := v.Fun.(*ast.Ident)
		return ok && (fun.Name == "make" || fun.Name == "new")
	case *ast.CompositeLit:
		sel, ok := v.Type.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && (pkg.Name == "sync" || pkg.Name == "atomic")
	}
	return false
}
