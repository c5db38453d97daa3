package lint

import (
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

// uncontained are the functions that start a goroutine or a timer with a function that does not
// contain panics itself. Each has the reason why it cannot panic, or the place that contains its
// panics. All other started functions must contain their panics.
var uncontained = map[string]string{
	"cmd/larder.storeCommand.run":          "waits for signals; a panic of an actor ends all",
	"cmd/larder.backend.run":               "Catalog.Run contains syncs; others use a Guard",
	"cmd/larder.rpcServer.stop":            "stops grpc's server",
	"internal/bytecache.NewValues":         "counts for ristretto: calls no other code",
	"internal/bucket/hedge.Bucket.read":    "calls the client through Contained",
	"internal/bucket/hedge.body.begin":     "the same",
	"internal/inbound.Pool.Around":         "ends a context; the handler runs contained",
	"internal/inbound.Requests.connection": "asks channelz and counts: calls no other code",
	"internal/inbound.Requests.Ended":      "the same",
	"internal/inbound.streams.ask":         "the same",
	"internal/inbound.Requests.Tap":        "counts, and closes a connection",
	"internal/memcached.Client.start":      "waits for a turn; Client.run contains",
	"internal/memcached.New":               "Client.carryOut and the look-up of names contain",
	"internal/memcached.Client.Close":      "drops a queue",
	"internal/pagecache.Reader.read":       "ends a flight, under the Reader's lock",
	"store.stalls.watch":                   "ends contexts",
	"store/catalog.Catalog.Run":            "publishes a view; OnChange is called contained",
	"store/catalog.localStore.syncMetas":   "syncs files",
	"store/catalog.withStall":              "ends a context",
	"store/indexheader.Manager.launch":     "ends a context",
	"store/indexheader.New":                "closes headers, and saves them contained",
	"store/indexheader.fetcher.start":      "reads through retry, which contains",
	"store/indexheader.readEnds":           "the same",
	"store/prefetch.Prefetcher.read":       "promotes a read",
}

// TestGoroutinesContainPanics: every goroutine contains its panics, because one that is not
// contained ends the process.
func TestGoroutinesContainPanics(t *testing.T) {
	contains := regexp.MustCompile(`\b[cC]ontained\(|\.Do\(|\.Caught\(|\brecover\(\)`)
	files := tree(t)
	bodies := map[string]string{} // of the functions and methods of a name, by package and name
	text := func(f *goFile, n ast.Node) string {
		return f.text[f.fset.Position(n.Pos()).Offset:f.fset.Position(n.End()).Offset]
	}
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && !f.test && fn.Body != nil {
				bodies[f.pkg+"."+fn.Name.Name] += text(f, fn.Body)
			}
		}
	}
	used := map[string]bool{}
	for _, f := range files {
		apart := strings.HasPrefix(f.pkg, "interop") || strings.HasPrefix(f.pkg, "benchmarks") ||
			strings.HasPrefix(f.pkg, "internal/faultstore")
		if f.test || apart || strings.HasSuffix(path.Base(f.pkg), "test") {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			name := f.pkg + "." + receiver(fn) + fn.Name.Name
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				started := startedBy(n)
				if started == nil {
					return true
				}
				code := text(f, started)
				if called := calledName(started); called != "" {
					code += bodies[f.pkg+"."+called]
				}
				if contains.MatchString(code) {
					return true
				}
				if _, ok := uncontained[name]; ok {
					used[name] = true
					return true
				}
				t.Errorf(
					"%s: %s starts a function that does not contain panics: use internal/panics, "+
						"or add the reason why it cannot panic to internal/lint",
					f.pos(n), name,
				)
				return true
			})
		}
	}
	for name := range uncontained {
		if !used[name] {
			t.Errorf("%s needs no entry in internal/lint any more: remove it", name)
		}
	}
}

// receiver returns the name of a method's type with a dot, "" for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	for {
		switch e := typ.(type) {
		case *ast.StarExpr:
			typ = e.X
		case *ast.IndexExpr:
			typ = e.X
		case *ast.IndexListExpr:
			typ = e.X
		case *ast.Ident:
			return e.Name + "."
		default:
			return ""
		}
	}
}

// startedBy returns what a node starts: the call of a go statement, or the function passed to a
// group's Go or to AfterFunc.
func startedBy(n ast.Node) ast.Expr {
	switch s := n.(type) {
	case *ast.GoStmt:
		return s.Call
	case *ast.CallExpr:
		sel, ok := s.Fun.(*ast.SelectorExpr)
		if !ok || len(s.Args) == 0 {
			return nil
		}
		name, args := sel.Sel.Name, len(s.Args)
		if name == "Go" && args == 1 || name == "AfterFunc" && args == 2 {
			return s.Args[len(s.Args)-1]
		}
	}
	return nil
}

// calledName returns the name of the function or method that is called, or passed to be called. For
// a function literal, it is the one call in it.
func calledName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr:
		return calledName(e.Fun)
	case *ast.FuncLit:
		last := ""
		ast.Inspect(e.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && last == "" && len(e.Body.List) == 1 {
				last = calledName(call.Fun)
			}
			return true
		})
		return last
	}
	return ""
}
