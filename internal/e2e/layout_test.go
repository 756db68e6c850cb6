package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	modulePath = "github.com/embedgw/gateway"
	moduleRoot = "../.."
	otelPath   = "go.opentelemetry.io"
)

// A part is one package of the floor plan: what it may import of ours, and
// whether users build it.
type part struct {
	imports    []string // folders
	tests      []string // what its tests import beside itself
	production bool
	otel       bool // its production code imports OpenTelemetry
}

var (
	leafFolders = []string{
		"internal/balance", "internal/dash", "internal/deliver", "internal/draft", "internal/explain", "internal/flight", "internal/flood", "internal/forward", "internal/h1", "internal/health", "internal/options", "internal/retry", "internal/rfc9111",
		"internal/roundtrip", "internal/stats", "internal/store", "internal/telemetry", "internal/work",
	}
	floorPlan = map[string]part{
		".":                    {imports: leafFolders, production: true},
		"internal/balance":     {production: true},
		"internal/dash":        {production: true}, // what operators look at
		"internal/deliver":     {production: true}, // a response's content on its way to a client
		"internal/draft":       {production: true}, // what a handler answers, until it is judged
		"internal/explain":     {production: true}, // a text that explains something
		"internal/flight":      {production: true},
		"internal/flood":       {production: true}, // how much is told of what happens too often
		"internal/forward":     {production: true},
		"internal/h1":          {production: true}, // an HTTP/1.1 client
		"internal/health":      {production: true}, // probes of endpoints, and the report on them
		"internal/options":     {production: true}, // what options are given, and which cannot stand beside each other
		"internal/retry":       {production: true},
		"internal/rfc9111":     {production: true},
		"internal/roundtrip":   {production: true}, // an exchange through an http.RoundTripper: net/http's HTTP/2, or the app's
		"internal/stats":       {production: true},
		"internal/store":       {production: true},
		"internal/telemetry":   {production: true, otel: true},
		"internal/work":        {production: true},
		"internal/testnet":     {},
		"internal/e2e":         {tests: []string{".", "internal/testnet"}},
		"internal/demo":        {imports: []string{"."}},
		"internal/bench":       {imports: []string{"."}},
		"internal/conformance": {tests: []string{"."}},
		"internal/interop":     {imports: []string{"."}, tests: []string{"internal/testnet", "internal/rfc9111"}},
	}
	// nestedModules are the modules that keep foreign peers out of our go.mod.
	nestedModules = []string{"internal/bench", "internal/conformance", "internal/interop"}
)

// A user of the package builds these modules with it, and no other.
var builtByUsers = []string{
	"github.com/cenkalti/backoff/v4",
	"github.com/cespare/xxhash/v2", // by otel
	"github.com/go-logr/logr",      // by otel
	"github.com/go-logr/stdr",      // by otel
	"github.com/hashicorp/golang-lru/v2",
	"go.opentelemetry.io/auto/sdk", // by otel/trace
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/log", // by otel
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
	"golang.org/x/sync", // semaphore: who waits for a connection, or for a place
	"golang.org/x/time", // rate: WithRateLimit
}

func TestRootHoldsItsFilesOnly(t *testing.T) {
	want := []string{
		".ci", ".github", ".gitignore", ".golangci.yml", "LICENSE", "README.md", "cache.go", "example_test.go",
		"gateway.go", "go.mod", "go.sum", "internal", "metrics.go", "options.go", "upstream.go",
	}
	ignored, err := os.ReadFile(filepath.Join(moduleRoot, ".gitignore"))
	require.NoError(t, err)
	entries, err := os.ReadDir(moduleRoot)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		if e.Name() != ".git" && !isIgnored(string(ignored), e.Name()) {
			got = append(got, e.Name())
		}
	}
	assert.Equal(t, want, got)
}

// isIgnored reports whether the lines of a .gitignore name a file of its own folder.
func isIgnored(lines, name string) bool {
	for line := range strings.Lines(lines) {
		pattern := strings.Trim(strings.TrimSpace(line), "/")
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

func TestFoldersAreThoseOfTheFloorPlan(t *testing.T) {
	found := map[string]bool{}
	for _, f := range sourceFiles(t) {
		found[f.folder] = true
	}
	assert.Equal(t, slices.Sorted(maps.Keys(floorPlan)), slices.Sorted(maps.Keys(found)))
}

func TestPackagesAreNamedForTheirFolder(t *testing.T) {
	for _, f := range sourceFiles(t) {
		want := path.Base(f.folder)
		switch {
		case f.folder == ".":
			want = "gateway"
		case slices.Contains(nestedModules, f.folder), f.folder == "internal/demo":
			continue // programs
		}
		assert.Contains(t, []string{want, want + "_test"}, f.syntax.Name.Name, f.name)
	}
}

func TestPackagesImportOnlyWhatThePlanAllows(t *testing.T) {
	for _, f := range sourceFiles(t) {
		p := floorPlan[f.folder]
		for _, imported := range f.imports {
			folder, ours := folderOf(imported)
			if !ours {
				continue
			}
			allowed := slices.Contains(p.imports, folder) ||
				f.test && (folder == f.folder || slices.Contains(p.tests, folder))
			assert.True(t, allowed, "%s imports %s", f.name, imported)
		}
	}
}

func TestOpenTelemetryStaysBehindItsDoor(t *testing.T) {
	for _, f := range sourceFiles(t) {
		p := floorPlan[f.folder]
		for _, imported := range f.imports {
			if !within(imported, otelPath) || !p.production {
				continue
			}
			door := p.otel || f.name == "metrics.go" || f.name == "example_test.go"
			assert.True(t, door, "%s imports %s", f.name, imported)
		}
	}
}

func TestProductionCodeImportsNoTestCode(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if !floorPlan[f.folder].production || f.test {
			continue
		}
		for _, imported := range f.imports {
			assert.False(t, isTestCode(imported), "%s imports %s", f.name, imported)
		}
	}
	for _, p := range listed(t).closure(modulePath) { // what comes in through others too
		assert.False(t, isTestCode(p.ImportPath), "users build %s", p.ImportPath)
	}
}

func isTestCode(importPath string) bool {
	return slices.ContainsFunc([]string{
		"testing", "net/http/httptest", "github.com/stretchr/testify", "go.uber.org/goleak",
		otelPath + "/otel/sdk", otelPath + "/otel/exporters", modulePath + "/internal/testnet",
	}, func(root string) bool { return within(importPath, root) })
}

func TestUsersBuildOnlyTheseModules(t *testing.T) {
	modules := map[string]bool{}
	for _, p := range listed(t).closure(modulePath) {
		if p.Module != nil && !p.Module.Main {
			modules[p.Module.Path] = true
		}
	}
	assert.Equal(t, builtByUsers, slices.Sorted(maps.Keys(modules)))
}

func TestNestedModulesAreThese(t *testing.T) {
	var got []string
	walkTree(t, func(name string, d fs.DirEntry) {
		if d.Name() == "go.mod" && name != "go.mod" {
			got = append(got, path.Dir(name))
		}
	})
	assert.Equal(t, nestedModules, got)
	for _, folder := range got {
		var mod struct {
			Module  struct{ Path string }
			Replace []struct{ Old, New struct{ Path string } }
		}
		require.NoError(t, json.Unmarshal(goOutput(t, "mod", "edit", "-json", folder+"/go.mod"), &mod))
		assert.Equal(t, modulePath+"/"+folder, mod.Module.Path)
		replaced := map[string]string{}
		for _, r := range mod.Replace {
			replaced[r.Old.Path] = r.New.Path
		}
		assert.Equal(t, map[string]string{modulePath: "../.."}, replaced, "%s/go.mod must build with the gateway beside it", folder)
	}
}

// A sourceFile is a Go file of this tree, whatever platform it is for.
type sourceFile struct {
	name, folder string // slash-separated, from the module's root
	test         bool
	imports      []string
	syntax       *ast.File
}

var sourceFiles = onceFor(func(t *testing.T) []sourceFile {
	var files []sourceFile
	fset := token.NewFileSet()
	walkTree(t, func(name string, _ fs.DirEntry) {
		if path.Ext(name) != ".go" {
			return
		}
		syntax, err := parser.ParseFile(fset, filepath.Join(moduleRoot, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		f := sourceFile{name: name, folder: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), syntax: syntax}
		for _, folder := range nestedModules {
			if within(f.folder, folder) {
				f.folder = folder
			}
		}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
	})
	return files
})

// walkTree calls f with each file of the tree, by its slash-separated name, but for
// those that Go and git do not look at.
func walkTree(t *testing.T, f func(name string, d fs.DirEntry)) {
	err := fs.WalkDir(os.DirFS(moduleRoot), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(d.Name(), "."), d.IsDir() && d.Name() == "testdata":
			if d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir():
			f(name, d)
		}
		return nil
	})
	require.NoError(t, err)
}

// within reports whether name is root or lies below it.
func within(name, root string) bool {
	return name == root || strings.HasPrefix(name, root+"/")
}

// folderOf returns the folder of a package of ours.
func folderOf(importPath string) (folder string, ours bool) {
	if importPath == modulePath {
		return ".", true
	}
	return strings.CutPrefix(importPath, modulePath+"/")
}

// A listedPackage is what go list says of a package: ours, and all that ours import.
type listedPackage struct {
	ImportPath, Dir, Export string
	GoFiles, Imports        []string
	Module                  *struct {
		Path string
		Main bool
	}
}

type packageList map[string]*listedPackage

// closure returns what a program that imports path builds.
func (l packageList) closure(importPath string) []*listedPackage {
	seen := map[string]bool{}
	var closure []*listedPackage
	var visit func(string)
	visit = func(name string) {
		p := l[name]
		if seen[name] || p == nil {
			return
		}
		seen[name] = true
		closure = append(closure, p)
		for _, imported := range p.Imports {
			visit(imported)
		}
	}
	visit(importPath)
	return closure
}

var listed = onceFor(func(t *testing.T) packageList {
	out := goOutput(t, "list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Imports,Module", ".", "./internal/...")
	list := packageList{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listedPackage)
		err := d.Decode(p)
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		list[p.ImportPath] = p
	}
})

// goOutput returns what the go command prints in the module's root.
func goOutput(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = moduleRoot
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	require.NoError(t, err)
	return out
}

// onceFor remembers what f found for the first test that asked.
func onceFor[T any](f func(t *testing.T) T) func(t *testing.T) T {
	var (
		do    sync.Once
		value T
	)
	return func(t *testing.T) T {
		t.Helper()
		do.Do(func() { value = f(t) })
		return value
	}
}
