package e2e_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Production code keeps nothing between two gateways of one process. It has no
// init function, and a package-level variable is a constant that the language
// has no word for: a sentinel error, a table, a func, a value of another
// package. So its type holds no lock, atomic, channel or pointer into this
// module, but to an error whose fields nobody assigns; and nobody assigns to it
// or to a part of it, takes its address (but an array's, for a local variable by
// which it is read), or hands a map or slice of it on, other than as an argument
// of a call. A sync.Pool is the one exception, for it remembers nothing that can
// be told.
func TestProductionCodeHasNoPackageState(t *testing.T) {
	for _, f := range sourceFiles(t) { // of all platforms
		if !floorPlan[f.folder].production || f.test {
			continue
		}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				assert.False(t, fn.Recv == nil && fn.Name.Name == "init", "%s has an init function", f.name)
			}
		}
	}
	for folder, p := range floorPlan {
		if !p.production {
			continue
		}
		importPath := strings.TrimSuffix(modulePath+"/"+folder, "/.")
		require.Contains(t, listed(t), importPath)
		for _, fault := range stateOf(t, listed(t)[importPath]) {
			assert.Fail(t, fault)
		}
	}
}

func TestPackageStateIsFound(t *testing.T) {
	const good = `package p
		import ("errors"; "strings"; "sync"; "time")
		var ErrX = errors.New("x")
		var pool = sync.Pool{New: func() any { return new(int) }}
		var table = [256]bool{'a': true}
		var names = map[string]bool{"a": true}
		var words, digits = []string{"a"}, [...]string{"0", "1"}
		var shape = strings.NewReplacer("a", "b")
		var epoch = time.Unix(0, 0)
		var limit, unit = 3, "s"
		type timeout struct{ what string }
		func (t *timeout) Error() string { return t.what }
		var errTimeout = &timeout{"s"}
		func f(ws ...string) bool {
			local := names["a"] && table['a'] && shape.Replace(unit) == unit && epoch.IsZero()
			for range words { limit := 4; limit++ }
			pool.Put(pool.Get())
			for form := &table; len(ws) > limit; form = &table { local = form[len(ws)] }
			local = local || f(words...) || f(digits[:]...) || ErrX == nil || error(errTimeout) == ErrX || len(names) > limit
			return local
		}`
	bad := map[string]string{
		"a lock":             `var v sync.Mutex`,
		"an atomic":          `var v struct{ n [2]atomic.Int64 }`,
		"a channel":          `var v = make(chan int)`,
		"a pointer":          `type n struct{}; var v = &n{}`,
		"a hidden pointer":   `type n struct{}; var v any = &n{}`,
		"an error's field":   `type n struct{ i int }; func (x *n) Error() string { x.i++; return "" }; var v error = &n{}`,
		"a func's result":    `type i interface{ m() }; func g() i { return nil }; var v = g()`,
		"assignment":         `var v int; func f() { v = 1 }`,
		"op assignment":      `var v int; func f() { v += 1 }`,
		"increment":          `var v int; func f() { v++ }`,
		"range":              `var v int; func f() { for v = range 3 {} }`,
		"an element":         `var v = map[int]int{}; func f() { v[1] = 2 }`,
		"an inner element":   `var v = []struct{ n [3]int }{}; func f() { (v[0]).n[1]++ }`,
		"delete":             `var v = map[int]int{}; func f() { delete(v, 1) }`,
		"clear":              `var v = map[int]int{}; func f() { clear(v) }`,
		"copy":               `var v = []int{1}; func f() { copy(v, v) }`,
		"append":             `var v = []int{1}; func f() { _ = append(v, 1) }`,
		"address":            `var v int; func f() *int { return &v }`,
		"address of a part":  `var v [3]int; func f() *int { return &v[1] }`,
		"a writer's address": `var v [3]int; func f() { w := &v; w[1] = 2 }`,
		"address passed on":  `var v [3]int; func f() *[3]int { w := &v; return w }`,
		"address of another": `var v [3]int; func f() { w := &v; x := w; x[1]++ }`,
		"slicing":            `var v [3]int; func f() { w := v[:]; w[0] = 1 }`,
		"append to a part":   `var v [3]int; func f() { _ = append(v[:0], 1) }`,
		"pointer method":     `type n struct{ i int }; func (x *n) inc() { x.i++ }; var v n; func f() { v.inc() }`,
		"alias":              `var v = []int{1}; func f() { w := v; w[0] = 1 }`,
		"returned":           `var v = []int{1}; func f() []int { return v }`,
		"in a literal":       `var v = []int{1}; func f() any { return struct{ s []int }{s: v} }`,
		"sent":               `var v = []int{1}; func f(c chan []int) { c <- v }`,
		"of another package": `func f() { http.DefaultClient = nil }`,
		"part of another":    `func f() { http.DefaultClient.Timeout = 1 }`,
	}
	assert.Empty(t, stateOfSource(t, good))
	for name, source := range bad {
		source = "package p\nimport (\"net/http\"; \"sync\"; \"sync/atomic\")\nvar _ sync.Locker; var _ atomic.Int64; var _ http.Handler\n" + source
		assert.NotEmpty(t, stateOfSource(t, source), name)
	}
}

func stateOf(t *testing.T, p *listedPackage) []string {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, f)
	}
	return findState(t, fset, p.ImportPath, files)
}

func stateOfSource(t *testing.T, source string) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.SkipObjectResolution)
	require.NoError(t, err)
	return findState(t, fset, modulePath+"/p", []*ast.File{f})
}

func findState(t *testing.T, fset *token.FileSet, importPath string, files []*ast.File) []string {
	t.Helper()
	s := stateFinder{written: map[types.Type]bool{}, passed: map[types.Object]bool{}, info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{},
		Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
	}}
	config := types.Config{Importer: compiled(t)}
	_, err := config.Check(importPath, fset, files, s.info)
	require.NoError(t, err)
	var faults []string
	fault := func(at token.Pos, v types.Object, reason string) {
		if reason != "" {
			faults = append(faults, fmt.Sprintf("%s: package-level variable %s: %s", fset.Position(at), v.Name(), reason))
		}
	}
	for _, f := range files {
		ast.PreorderStack(f, nil, func(n ast.Node, parents []ast.Node) bool {
			s.assigned(n)
			s.local(n, parents)
			return true
		})
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				s.declared(g, fault)
			}
		}
		ast.PreorderStack(f, nil, func(n ast.Node, parents []ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				if v, ok := s.info.Uses[id].(*types.Var); ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
					fault(id.Pos(), v, s.used(id, parents))
				}
			}
			return true
		})
	}
	return faults
}

type stateFinder struct {
	info    *types.Info
	written map[types.Type]bool   // the structs with a field that somebody assigns
	passed  map[types.Object]bool // the variables that do more than read what they point to, by index
}

// assigned notes the struct that a node assigns a field of.
func (s *stateFinder) assigned(n ast.Node) {
	var to []ast.Expr
	switch n := n.(type) {
	case *ast.AssignStmt:
		to = n.Lhs
	case *ast.IncDecStmt:
		to = []ast.Expr{n.X}
	}
	for _, e := range to {
		if sel, ok := ast.Unparen(e).(*ast.SelectorExpr); ok && s.info.Selections[sel] != nil {
			t := s.info.TypeOf(sel.X)
			if p, ok := t.Underlying().(*types.Pointer); ok {
				t = p.Elem()
			}
			s.written[t] = true
		}
	}
}

// local notes a variable by which more is done than to read.
func (s *stateFinder) local(n ast.Node, parents []ast.Node) {
	id, ok := n.(*ast.Ident)
	if !ok || s.info.Uses[id] == nil {
		return
	}
	switch p := parents[len(parents)-1].(type) {
	case *ast.AssignStmt:
		if slices.Contains(p.Lhs, ast.Expr(id)) {
			return
		}
	case *ast.IndexExpr:
		if p.X == id && s.used(id, parents) == "" {
			return
		}
	}
	s.passed[s.info.Uses[id]] = true
}

// declared judges what the variables of a declaration are.
func (s *stateFinder) declared(d *ast.GenDecl, fault func(token.Pos, types.Object, string)) {
	for _, spec := range d.Specs {
		spec := spec.(*ast.ValueSpec)
		for i, name := range spec.Names {
			v := s.info.Defs[name]
			if name.Name == "_" || isPool(v.Type()) {
				continue
			}
			judged := v.Type()
			if types.IsInterface(judged) && i < len(spec.Values) {
				judged = s.info.TypeOf(spec.Values[i]) // what is behind the interface
			}
			fault(name.Pos(), v, s.holdsState(judged, map[types.Type]bool{}))
		}
	}
}

// holdsState says what in a type can change while nobody assigns to it.
func (s *stateFinder) holdsState(t types.Type, seen map[types.Type]bool) string {
	if seen[t] {
		return ""
	}
	seen[t] = true
	if named, ok := types.Unalias(t).(*types.Named); ok && named.Obj().Pkg() != nil {
		if p := named.Obj().Pkg().Path(); p == "sync" || p == "sync/atomic" {
			return "holds a " + named.String()
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Chan:
		return "holds a channel"
	case *types.Pointer:
		if isOurs(u.Elem()) && (!types.Implements(t, errorInterface) || s.written[u.Elem()]) {
			return "holds a pointer into this module"
		}
	case *types.Interface:
		if isOurs(t) {
			return "holds an interface of this module"
		}
	case *types.Map:
		return s.holdsState(u.Elem(), seen)
	case *types.Slice:
		return s.holdsState(u.Elem(), seen)
	case *types.Array:
		return s.holdsState(u.Elem(), seen)
	case *types.Struct:
		for f := range u.Fields() {
			if reason := s.holdsState(f.Type(), seen); reason != "" {
				return reason
			}
		}
	}
	return ""
}

var errorInterface = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

// used judges what the code does with a variable that it names.
func (s *stateFinder) used(id *ast.Ident, parents []ast.Node) string {
	var e ast.Expr = id
	up := len(parents) - 1
	if sel, ok := parents[up].(*ast.SelectorExpr); ok && sel.Sel == id { // of another package
		e, up = sel, up-1
	}
	for ; ; up-- { // to the whole of the expression that names a part of the variable
		switch p := parents[up].(type) {
		case *ast.ParenExpr, *ast.StarExpr:
			e = p.(ast.Expr)
			continue
		case *ast.IndexExpr:
			if p.X == e {
				e = p
				continue
			}
		case *ast.SliceExpr:
			if p.X == e {
				e = p
				continue
			}
		case *ast.SelectorExpr:
			if method, ok := s.info.Selections[p]; ok && method.Kind() != types.FieldVal {
				return s.called(method, e)
			}
			e = p
			continue
		}
		break
	}
	return s.stands(e, parents[up], parents[up-1])
}

// called judges a method of a variable or of a part of it.
func (s *stateFinder) called(method *types.Selection, on ast.Expr) string {
	_, byPointer := method.Obj().(*types.Func).Signature().Recv().Type().(*types.Pointer)
	_, isPointer := s.info.TypeOf(on).Underlying().(*types.Pointer)
	if byPointer && !isPointer && !isPool(s.info.TypeOf(on)) {
		return "its address is taken by a method"
	}
	return ""
}

// stands judges the place where a variable or a part of it stands.
func (s *stateFinder) stands(e ast.Expr, parent, above ast.Node) string {
	switch p := parent.(type) {
	case *ast.AssignStmt:
		if slices.Contains(p.Lhs, e) {
			return "is assigned to"
		}
	case *ast.IncDecStmt:
		return "is assigned to"
	case *ast.RangeStmt:
		if p.Key == e || p.Value == e {
			return "is assigned to"
		}
		return ""
	case *ast.UnaryExpr:
		if p.Op == token.AND && !s.isForReading(e, p, above) {
			return "its address is taken"
		}
	case *ast.CallExpr:
		if builtin, ok := s.info.Uses[calleeName(p)].(*types.Builtin); ok && len(p.Args) > 0 && p.Args[0] == e {
			if slices.Contains([]string{"append", "clear", "copy", "delete"}, builtin.Name()) {
				return "is written by " + builtin.Name()
			}
		}
		return ""
	case *ast.BinaryExpr, *ast.ExprStmt, *ast.IfStmt, *ast.IndexExpr, *ast.SliceExpr:
		return ""
	}
	switch s.info.TypeOf(e).Underlying().(type) {
	case *types.Slice, *types.Map:
		return fmt.Sprintf("gets a second name in a %T of a %T", parent, above)
	}
	return ""
}

// isForReading reports whether the address of an array is for a local variable
// by which it is only read.
func (s *stateFinder) isForReading(e, address ast.Expr, above ast.Node) bool {
	_, whole := e.(*ast.Ident)
	_, array := s.info.TypeOf(e).Underlying().(*types.Array)
	a, ok := above.(*ast.AssignStmt)
	if !whole || !array || !ok {
		return false
	}
	i := slices.Index(a.Rhs, address)
	if i < 0 || len(a.Lhs) != len(a.Rhs) {
		return false
	}
	to, ok := a.Lhs[i].(*ast.Ident)
	if !ok {
		return false
	}
	v, ok := s.info.ObjectOf(to).(*types.Var)
	return ok && v.Parent() != v.Pkg().Scope() && !s.passed[v]
}

func calleeName(call *ast.CallExpr) *ast.Ident {
	id, _ := ast.Unparen(call.Fun).(*ast.Ident)
	return id
}

func isPool(t types.Type) bool {
	return types.TypeString(t, nil) == "sync.Pool"
}

// isOurs reports whether a type is declared in this module, or has no name at all.
func isOurs(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	if !ok {
		return true
	}
	return named.Obj().Pkg() != nil && within(named.Obj().Pkg().Path(), modulePath)
}
