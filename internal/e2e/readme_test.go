package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

var readme = onceFor(func(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	require.NoError(t, err)
	return string(text)
})

// named reports whether the README has a word in backquotes, be it as the first
// of several: `WithService(name, target)`.
func named(t *testing.T, word string) bool {
	return regexp.MustCompile("`(gateway\\.|gw\\.)?" + regexp.QuoteMeta(word) + "(`|\\()").MatchString(readme(t))
}

// row returns the cells of the table row that begins with a word, or nil.
func row(t *testing.T, word string) []string {
	for line := range strings.Lines(readme(t)) {
		if strings.HasPrefix(line, "| `"+word+"` |") {
			cells := strings.Split(strings.Trim(line, "|\n "), " | ")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			return cells
		}
	}
	return nil
}

func TestReadmeGivesTheTwoCommandsFirst(t *testing.T) {
	demo, tests := strings.Index(readme(t), "    go run ./internal/demo"), strings.Index(readme(t), "    go test ./...")
	require.Positive(t, demo)
	require.Positive(t, tests)
	assert.Less(t, max(demo, tests), strings.Index(readme(t), "## What it does"))
}

// A link within the README leads to a heading, and each heading of a whole topic
// is linked to.
func TestReadmeLinksLeadToItsHeadings(t *testing.T) {
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^(#{2,3}) (.*)$`).FindAllStringSubmatch(readme(t), -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading[2]), "")
		anchors[strings.ReplaceAll(text, " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(readme(t), -1)
	require.NotEmpty(t, links)
	linked := map[string]bool{}
	for _, link := range links {
		assert.True(t, anchors[link[1]], "#%s is no heading", link[1])
		linked[link[1]] = true
	}
	for _, topic := range []string{"mounting", "options", "retries", "connections", "overload", "streams", "the-cache", "errors", "telemetry", "handlers", "security"} {
		assert.True(t, linked[topic], "nothing leads to #%s", topic)
	}
}

// What the README shows compiles, and does what its Example says.
func TestReadmeGoBlocksStandInExamples(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	require.NotEmpty(t, blocks)
	examples := exampleBodies(t)
	for _, block := range blocks {
		var homes []string
		for name, body := range examples {
			if holds(body, strings.Split(strings.TrimSuffix(block[1], "\n"), "\n")) {
				homes = append(homes, name)
			}
		}
		assert.NotEmpty(t, homes, "stands in no Example with Output:\n%s", block[1])
	}
}

// exampleBodies returns the lines of each Example that has an Output.
func exampleBodies(t *testing.T) map[string][]string {
	source, err := os.ReadFile(filepath.Join(moduleRoot, "example_test.go"))
	require.NoError(t, err)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "example_test.go", source, parser.SkipObjectResolution)
	require.NoError(t, err)
	bodies := map[string][]string{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Example") {
			continue
		}
		body := string(source[fset.Position(f.Body.Lbrace).Offset+1 : fset.Position(f.Body.Rbrace).Offset])
		require.Contains(t, body, "\t// Output:\n", f.Name.Name)
		bodies[f.Name.Name] = strings.Split(body, "\n")
	}
	return bodies
}

// holds reports whether block stands in body as it is, but for one indentation
// of all its lines.
func holds(body, block []string) bool {
	for at := range len(body) - len(block) + 1 {
		indent, ok := strings.CutSuffix(body[at], block[0])
		if !ok || strings.Trim(indent, "\t") != "" {
			continue
		}
		if slices.EqualFunc(body[at:at+len(block)], block, func(got, want string) bool {
			return got == want && want == "" || want != "" && got == indent+want
		}) {
			return true
		}
	}
	return false
}

func TestReadmeBlockIsFoundAtOneIndentationOnly(t *testing.T) {
	body := []string{"", "\ta(", "\t\tb,", "", "\t)"}
	assert.True(t, holds(body, []string{"a(", "\tb,", "", ")"}))
	assert.True(t, holds(body, []string{"b,"}))
	assert.False(t, holds(body, []string{"a(", "b,"}))
	assert.False(t, holds(body, []string{"a(", "\tb,", ")"}))
	assert.False(t, holds(body, []string{"(", "\tb,"}))
}

// publicFace returns the declarations of the root, with their comments.
var publicFace = onceFor(func(t *testing.T) []ast.Decl {
	var decls []ast.Decl
	for _, name := range []string{"cache.go", "gateway.go", "metrics.go", "options.go", "upstream.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(moduleRoot, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		decls = append(decls, file.Decls...)
	}
	return decls
})

var (
	defaultClause = regexp.MustCompile(`Default\b.*?(\. |\.$|; )`)
	citation      = regexp.MustCompile(`RFC \d+( §[\d.]*\d)?`)
	quantity      = regexp.MustCompile(`\d+(\.\d+)?( (KiB|MiB|ms|s|min)\b)?`)
)

func TestReadmeNamesEveryFunctionAndOptionWithItsDefault(t *testing.T) {
	for _, d := range publicFace(t) {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !f.Name.IsExported() {
			continue
		}
		name := f.Name.Name
		assert.True(t, named(t, name), "%s is missing", name)
		if !strings.HasPrefix(name, "With") || name == "WithService" {
			continue
		}
		cells := row(t, name)
		require.NotNil(t, cells, "%s has no row", name)
		doc := strings.Join(strings.Fields(f.Doc.Text()), " ") + " "
		clause := defaultClause.FindString(doc)
		if clause == "" {
			continue
		}
		text := strings.Join(cells[1:], " | ")
		assert.NotEmpty(t, cells[1], "%s has a default: %s", name, clause)
		for _, number := range quantity.FindAllString(citation.ReplaceAllString(clause, ""), -1) {
			assert.Regexp(t, `(^|[^\d.])`+regexp.QuoteMeta(number)+`($|[^\d.]|\.\D)`, text, "%s: %s", name, clause)
		}
	}
}

func TestReadmeNamesEveryMethod(t *testing.T) {
	for _, d := range publicFace(t) {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv == nil || !f.Name.IsExported() || slices.Contains([]string{"ServeHTTP", "Error", "Unwrap", "ErrorType"}, f.Name.Name) {
			continue
		}
		receiver := f.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok && ast.IsExported(star.X.(*ast.Ident).Name) {
			name := f.Name.Name
			assert.True(t, regexp.MustCompile(`\b`+name+`\b`).MatchString(readme(t)), "%s is missing", name)
		}
	}
}

func TestReadmeExplainsEveryReason(t *testing.T) {
	status := regexp.MustCompile(`^\d{3}`)
	found := 0
	for _, d := range publicFace(t) {
		consts, ok := d.(*ast.GenDecl)
		if !ok || consts.Tok != token.CONST {
			continue
		}
		for _, spec := range consts.Specs {
			v := spec.(*ast.ValueSpec)
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Reason" {
				continue
			}
			found++
			name, value := v.Names[0].Name, v.Values[0].(*ast.BasicLit).Value
			cells := row(t, name)
			if assert.Len(t, cells, 4, "%s has no row", name) {
				assert.Equal(t, "`"+strings.Trim(value, `"`)+"`", cells[1], name)
				assert.Equal(t, status.FindString(v.Comment.Text()), cells[2], name)
				assert.NotEmpty(t, cells[3], name)
			}
		}
	}
	assert.Equal(t, strings.Count(readme(t), "\n| `Reason"), found)
}

// constantsOf returns the values of a type's constants in a folder.
func constantsOf(t *testing.T, folder, typeName string) (values []string) {
	for _, f := range sourceFiles(t) {
		if f.folder != folder || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
				if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == typeName {
					values = append(values, literal(v.Values[0]))
				}
			}
			return true
		})
	}
	require.NotEmpty(t, values, typeName)
	return values
}

func TestReadmeShowsAnExplanation(t *testing.T) {
	_, section, found := strings.Cut(readme(t), "### Explain\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n### ")
	var shown, printed []string
	for line := range strings.Lines(section) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			shown = append(shown, strings.TrimSuffix(text, "\n"))
		}
	}
	_, output, _ := strings.Cut(strings.Join(exampleBodies(t)["ExampleGateway_Explain"], "\n"), "\t// Output:\n")
	for line := range strings.Lines(output) {
		if text, ok := strings.CutPrefix(line, "\t// "); ok {
			printed = append(printed, strings.TrimSuffix(text, "\n"))
		}
	}
	require.NotEmpty(t, shown)
	assert.Equal(t, printed[1:], shown, "what it prints, behind the first line")
	for _, verdict := range constantsOf(t, ".", "Verdict") {
		cells := row(t, verdict)
		if assert.Len(t, cells, 2, "%s has no row", verdict) {
			assert.NotEmpty(t, cells[1], verdict)
		}
	}
}

func TestReadmeNamesWhatAnUpstreamMayBe(t *testing.T) {
	for _, state := range constantsOf(t, ".", "BreakerState") {
		assert.True(t, named(t, state), "the breaker's %s is missing", state)
	}
	for _, why := range constantsOf(t, "internal/h1", "Discard") {
		cells := row(t, why)
		if assert.Len(t, cells, 2, "%s has no row", why) {
			assert.NotEmpty(t, cells[1], why)
		}
	}
	for _, health := range []string{"healthy", "ejected", "unhealthy"} {
		assert.True(t, named(t, health), health)
	}
}

// logLines are what production code logs: the names of the fields, by message.
func logLines(t *testing.T) map[string][]string {
	lines := map[string][]string{}
	for _, f := range sourceFiles(t) {
		if !floorPlan[f.folder].production || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "LogAttrs" {
				return true
			}
			message := literal(call.Args[2])
			assert.NotEmpty(t, message, "%s logs a line without a name", f.name)
			fields := lines[message]
			for _, arg := range call.Args[3:] {
				fields = append(fields, attrNames(arg)...)
			}
			lines[message] = fields
			return true
		})
	}
	return lines
}

// attrNames are the names of an attribute that a line is given.
func attrNames(arg ast.Expr) []string {
	switch arg := arg.(type) {
	case *ast.CallExpr:
		if len(arg.Args) > 0 {
			return []string{literal(arg.Args[0])}
		}
		switch arg.Fun.(*ast.SelectorExpr).Sel.Name {
		case "serverAddress":
			return []string{"server.address"}
		case "serverPort":
			return []string{"server.port"}
		}
	case *ast.Ident:
		switch arg.Name {
		case "address":
			return []string{"server.address"}
		case "port":
			return []string{"server.port"}
		}
	}
	return nil
}

func TestReadmeNamesEveryLogLine(t *testing.T) {
	lines := logLines(t)
	for _, must := range []string{"gateway: request", "gateway: panic", "gateway: breaker", "gateway: ejection", "gateway: return", "gateway: replica", "gateway: name resolution",
		"gateway: addresses", "gateway: replicas", "gateway: response writer", "gateway: update", "gateway: drain", "gateway: shutdown"} {
		assert.Contains(t, lines, must)
	}
	for message, fields := range lines {
		assert.True(t, named(t, message), "%s is missing", message)
		cells := row(t, message)
		if message == "gateway: request" || !assert.Len(t, cells, 4, "%s has no row", message) {
			continue // whose fields are looked at as they are recorded
		}
		assert.Equal(t, "`"+strings.Join(fields, "`, `")+"`", cells[3], message)
	}
}

// logFields are the fields of all lines that production code logs: their kinds,
// by their names.
func logFields(t *testing.T) map[string]string {
	fields := map[string]string{}
	for _, f := range sourceFiles(t) {
		if !floorPlan[f.folder].production || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || fmt.Sprint(sel.X) != "slog" || len(call.Args) != 2 {
				return true
			}
			name := literal(call.Args[0])
			assert.NotEmpty(t, name, "%s logs a field without a name", f.name)
			assert.Contains(t, []string{"", sel.Sel.Name}, fields[name], "%s is of two kinds", name)
			fields[name] = sel.Sel.Name
			return true
		})
	}
	return fields
}

// Fields are flat, have names of the conventions or of our own, and durations are
// in seconds.
func TestReadmeExplainsEveryLogField(t *testing.T) {
	fields := logFields(t)
	assert.Contains(t, fields, "http.request.method")
	assert.Contains(t, fields, "gateway.stage.duration")
	_, section, _ := strings.Cut(readme(t), "| log field |")
	section, _, _ = strings.Cut(section, "\n\n")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		if cells := strings.Split(strings.Trim(line, "|\n "), " | "); strings.HasPrefix(line, "| `") {
			rows[strings.Trim(cells[0], "`")] = cells
		}
	}
	assert.Len(t, rows, len(fields), "rows of nothing that is logged")
	for name, kind := range fields {
		assert.Regexp(t, `^(trace_id|span_id|(gateway|http|url|client|server|error|exception|dns)(\.[a-z_]+)+)$`, name)
		cells := rows[name]
		if !assert.Len(t, cells, 4, "%s has no row", name) {
			continue
		}
		want := map[string]string{"String": "text", "Int": "integer", "Int64": "integer", "Uint64": "integer", "Float64": "seconds", "Bool": "true or false", "Any": "list of texts"}[kind]
		assert.Equal(t, want, cells[1], name)
		assert.NotEmpty(t, cells[3], name)
	}
	for name := range recordAll(t).fields {
		assert.True(t, fields[name] != "" || slices.Contains([]string{"time", "level", "msg"}, name), name)
	}
}

// cacheDetails are what the cache's rules, and cache.go, may say in the detail
// of a Cache-Status.
func cacheDetails(t *testing.T) (details []string) {
	for _, f := range sourceFiles(t) {
		if f.folder != "internal/rfc9111" && f.name != "cache.go" || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if typ, ok := n.Type.(*ast.Ident); ok && (typ.Name == "Verdict" || typ.Name == "Bypass") && len(n.Values) == 1 {
					details = append(details, literal(n.Values[0]))
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if field, ok := left.(*ast.SelectorExpr); ok && field.Sel.Name == "Detail" && len(n.Rhs) == len(n.Lhs) {
						details = append(details, literal(n.Rhs[i]))
					}
				}
			}
			return true
		})
	}
	slices.Sort(details)
	return slices.DeleteFunc(slices.Compact(details), func(s string) bool { return s == "" })
}

// literal returns the value of a string literal, and "" of anything else.
func literal(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		s, _ := strconv.Unquote(lit.Value)
		return s
	}
	return ""
}

func TestReadmeExplainsEveryDetailOfCacheStatus(t *testing.T) {
	details := cacheDetails(t)
	assert.Contains(t, details, "no-freshness")
	assert.Contains(t, details, "trailer")
	_, section, _ := strings.Cut(readme(t), "| detail | why |")
	section, _, _ = strings.Cut(section, "\n\n")
	var explained []string
	for _, cell := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(section, -1) {
		explained = append(explained, cell[1])
	}
	slices.Sort(explained)
	assert.Equal(t, details, explained)
}

func TestReadmeNamesTheFieldsOfStats(t *testing.T) {
	tags := regexp.MustCompile("`json:\"([a-z0-9_]+)\"`")
	for _, d := range publicFace(t) {
		types, ok := d.(*ast.GenDecl)
		if !ok || types.Tok != token.TYPE {
			continue
		}
		for _, spec := range types.Specs {
			s := spec.(*ast.TypeSpec)
			structure, ok := s.Type.(*ast.StructType)
			if !ok || !s.Name.IsExported() {
				continue
			}
			for _, f := range structure.Fields.List {
				if f.Tag == nil {
					continue
				}
				if tag := tags.FindStringSubmatch(f.Tag.Value); assert.NotNil(t, tag, f.Tag.Value) {
					assert.True(t, named(t, tag[1]), "%s of %s is missing", tag[1], s.Name.Name)
				}
			}
		}
	}
}

// recorded is what one gateway, asked for everything that it can do, told
// OpenTelemetry and its logger.
type recorded struct {
	attributes, metrics, fields map[string]bool
	shown                       map[string]*shown // of metrics
}

// shown is what a metric is.
type shown struct {
	kind, unit string
	attributes map[string]bool
}

func recordAll(t *testing.T) recorded {
	spans, reader, logs := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader(), testnet.NewLogRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	calls := 0
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++ // requests come one after the other
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Cache-Control", "max-age=60")
		if calls == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, "ok")
	}))
	defer up.Close()
	cache, err := gateway.NewCache(gateway.WithMeterProvider(mp))
	require.NoError(t, err)
	gw, err := gateway.New(
		gateway.WithCache(cache), gateway.WithLogger(logs.Logger()), gateway.WithPropagator(propagation.TraceContext{}),
		gateway.WithTracerProvider(tp), gateway.WithMeterProvider(mp),
		gateway.WithService("a", up.URL, gateway.WithMethods("BREW"), gateway.WithMaxConcurrency(10, 0, 0)),
		gateway.WithService("b", up.URL, gateway.WithModifyResponse(func(*http.Response) error { return errors.New("no") })),
		gateway.WithService("c", up.URL, gateway.WithRewrite(func(*http.Request) { panic("no") })),
	)
	require.NoError(t, err)
	h := http.StripPrefix("/api", gw)
	inside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tp.Tracer("app").Start(r.Context(), "app")
		defer span.End()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Inside") != "" {
			inside.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer app.Close()
	for _, ask := range []struct{ method, target, body, inside string }{
		{"GET", "/api/a/1?x=1", "", ""}, {"GET", "/api/a/1?x=1", "", ""}, {"POST", "/api/a/1", "x", ""}, {"BREW", "/api/a/1", "", ""},
		{"GET", "/api/b/1", "", ""}, {"GET", "/api/c/1", "", ""}, {"GET", "/api/d/1", "", ""}, {"GET", "/api/a/2", "", "yes"}, {"GET", "/api/b/1", "", "yes"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), ask.method, app.URL+ask.target, strings.NewReader(ask.body))
		require.NoError(t, err)
		req.Header.Set("X-Inside", ask.inside)
		resp, err := app.Client().Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	app.Close()
	r := collect(t, spans, reader, logs)
	require.NoError(t, gw.Shutdown(t.Context()))
	require.NoError(t, cache.Shutdown(t.Context()))
	return r
}

func collect(t *testing.T, spans *tracetest.InMemoryExporter, reader *sdkmetric.ManualReader, logs *testnet.LogRecorder) recorded {
	r := recorded{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]*shown{}}
	for _, s := range spans.GetSpans() {
		for _, a := range s.Attributes {
			r.attributes[string(a.Key)] = true
		}
	}
	var data metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &data))
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			s := &shown{unit: m.Unit, attributes: map[string]bool{}}
			r.metrics[m.Name], r.shown[m.Name] = true, s
			var sets []attribute.Set
			s.kind, sets = kindOf(m.Data)
			for _, set := range sets {
				for _, kv := range set.ToSlice() {
					r.attributes[string(kv.Key)], s.attributes[string(kv.Key)] = true, true
				}
			}
		}
	}
	for _, line := range logs.Records(t) {
		for field := range line {
			r.fields[field] = true
		}
	}
	return r
}

// kindOf returns what the README calls an instrument, and the attributes of its
// series.
func kindOf(data metricdata.Aggregation) (kind string, sets []attribute.Set) {
	monotonic := map[bool]string{true: "counter", false: "level"}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
		return monotonic[d.IsMonotonic], sets
	case metricdata.Sum[float64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
		return monotonic[d.IsMonotonic], sets
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
		return "histogram", sets
	}
	return fmt.Sprintf("%T", data), nil
}

// The table of metrics is a contract: each is there, as it is recorded, with its
// kind, its unit and every attribute, and none besides.
func TestReadmeNamesEveryMetric(t *testing.T) {
	r := recordAll(t)
	for name, m := range r.shown {
		cells := row(t, name)
		if !assert.Len(t, cells, 5, "%s has no row", name) {
			continue
		}
		assert.Equal(t, []string{m.kind, m.unit}, cells[1:3], name)
		var attributes []string
		for _, a := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
			attributes = append(attributes, a[1])
		}
		assert.ElementsMatch(t, slices.Collect(maps.Keys(m.attributes)), attributes, name)
	}
	_, table, _ := strings.Cut(readme(t), "| name | kind | unit | attributes | what |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, name := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(table, -1) {
		assert.Contains(t, r.metrics, name[1])
	}
	assert.Equal(t, len(r.metrics), strings.Count(table, "\n| `"))
}

// What the README says of the number of series is so.
func TestReadmeGivesTheNumberOfSeries(t *testing.T) {
	text := strings.Join(strings.Fields(readme(t)), " ")
	said := func(pattern string) int {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		require.NotNil(t, m, pattern)
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		return n
	}
	service, breaker, queue := said(`of each service (\d+), and one for each`), said(`(\d+) with a circuit breaker`), said("(\\d+) with `WithMaxConcurrency`")
	host, bare, none := said(`among its replicas (\d+)`), said("among its replicas \\d+ \\((\\d+) with `WithTransport`"), said(`of requests for none (\d+)`)
	cache, client, bareClient := said(`of all caches (\d+)`), said(`among all replicas (\d+)`), said("among all replicas \\d+ \\((\\d+) with `WithTransport`")
	rt := gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { return nil, net.ErrClosed }))
	replicas := gateway.WithReplicas(gateway.Replica{URL: "http://b.test"}, gateway.Replica{URL: "http://c.test"})
	for name, tt := range map[string]struct {
		opts []gateway.ServiceOption
		want int
	}{
		"plain":     {nil, breaker + host + client},
		"without":   {[]gateway.ServiceOption{gateway.WithoutBreaker()}, host + client},
		"queue":     {[]gateway.ServiceOption{gateway.WithMaxConcurrency(1, 1, 1)}, breaker + queue + host + client},
		"replicas":  {[]gateway.ServiceOption{replicas}, breaker + 3*(host+client)},
		"transport": {[]gateway.ServiceOption{replicas, rt}, breaker + 3*(bare+bareClient)},
	} {
		o := newObserved(t)
		o.gateway(gateway.WithService("a", "http://a.test", tt.opts...))
		assert.Len(t, o.values(), service+none+tt.want, name)
		o.gateway(gateway.WithService("b", "http://a.test", tt.opts...))
		shared := client
		if name == "transport" {
			shared = bareClient
		}
		if strings.HasPrefix(name, "replicas") || name == "transport" {
			shared *= 3
		}
		assert.Len(t, o.values(), 2*(service+tt.want)+none-shared, "%s: they have their servers in common", name)
	}
	o := newObserved(t)
	c, err := gateway.NewCache(o.opts[1].(gateway.CacheOption))
	require.NoError(t, err)
	assert.Len(t, o.values(), cache)
	require.NoError(t, c.Shutdown(t.Context()))
}

func TestReadmeNamesWhatIsRecorded(t *testing.T) {
	r := recordAll(t)
	for _, must := range []string{"http.request.resend_count", "gateway.cache.result", "gateway.reason", "http.request.method_original"} {
		assert.Contains(t, r.attributes, must)
	}
	for kind, names := range map[string]map[string]bool{"attribute": r.attributes, "metric": r.metrics, "log field": r.fields} {
		for name := range names {
			if !slices.Contains([]string{"time", "level", "msg"}, name) {
				assert.True(t, named(t, name), "%s %s is missing", kind, name)
			}
		}
	}
	_, section, _ := strings.Cut(readme(t), "## Telemetry")
	section, _, _ = strings.Cut(section, "**Handlers.**")
	for _, name := range regexp.MustCompile("`([a-z_]+(?:\\.[a-z_0-9]+)+)`").FindAllStringSubmatch(section, -1) {
		known := r.attributes[name[1]] || r.metrics[name[1]] || logFields(t)[name[1]] != ""
		assert.True(t, known, fmt.Sprintf("%s is recorded nowhere", name[1]))
	}
}
