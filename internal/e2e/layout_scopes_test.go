package e2e_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// optionHomes are the places where an option can stand, by the scope that each is.
var optionHomes = map[string]string{
	"gateway":  `gateway.New(%s)`,
	"upstream": `gateway.NewUpstream("a", "http://a", %s)`,
	"service":  `gateway.WithService("a", "http://a", %s)`,
	"cache":    `gateway.NewCache(%s)`,
}

// optionScopes names, for each option, the homes where it compiles. Everywhere
// else it must not.
var optionScopes = []struct{ homes, options string }{
	{"gateway", `
		WithMemoryWatch(1, nil)
		WithService("b", "http://b")`},
	{"upstream service", `
		WithBearerToken("x")
		WithCacheAuthorized()
		WithHeader("X-Key", "x")
		WithMethods("PURGE")
		WithModifyResponse(nil)
		WithReplicas(gateway.Replica{URL: "http://b"})
		WithRewrite(nil)
		WithTokenSource(nil)`},
	{"gateway upstream service", `
		WithAcquireTimeout(1)
		WithAttemptTimeout(1)
		WithBaggage()
		WithBalancing(gateway.RoundRobin())
		WithBodyIdleTimeout(1)
		WithBreaker(1, 1)
		WithBreakerHook(nil)
		WithBreakerTimes(1, 1, 1)
		WithCache(nil)
		WithConnIdleTimeout(1)
		WithDNSRefresh(1)
		WithDialContext(nil)
		WithDialTimeout(1)
		WithEjection(1, 1, 1)
		WithEjectionShare(1)
		WithForwarded()
		WithHTTP2()
		WithHealthChecks(1, 1, 1)
		WithHealthPath("/")
		WithHealthPolicy(gateway.HealthFail)
		WithHealthTimeout(1)
		WithHedge(1)
		WithLogLimit(1)
		WithLogSampling(1)
		WithMaxBodyBytes(1)
		WithMaxConcurrency(1, 1, 1)
		WithMaxConnAge(1)
		WithMaxConns(1)
		WithMaxDuration(1)
		WithMaxHeaderBytes(1)
		WithMaxRetryAfter(1)
		WithMaxResponseBytes(1)
		WithMaxTunnels(1)
		WithMinConns(1)
		WithMountPath("/api")
		WithPanicThreshold(1)
		WithPreserveHost()
		WithPropagation()
		WithPublicEndpoint()
		WithRateLimit(1, 1)
		WithRequestID("X-Request-Id")
		WithResponseHeaderTimeout(1)
		WithRetries(1)
		WithRetryBackoff(1, 2)
		WithRetryBodyBytes(1)
		WithRetryBudget(1, 1)
		WithServerTiming()
		WithSlowRequest(1, nil)
		WithSlowStart(1)
		WithTLSConfig(nil)
		WithTLSHandshakeTimeout(1)
		WithTimeout(1)
		WithTransport(nil)
		WithTrustedProxies("10.0.0.0/8")
		WithTunnelIdleTimeout(1)
		WithoutBaggage()
		WithoutBreaker()
		WithoutCache()
		WithoutConnReuse()
		WithoutEjection()
		WithoutForwarded()
		WithoutHTTP2()
		WithoutHealthChecks()
		WithoutMaxConcurrency()
		WithoutPropagation()
		WithoutPublicEndpoint()
		WithoutRateLimit()
		WithoutRequestID()
		WithoutRetries()
		WithoutServerTiming()
		WithoutSlowRequest()`},
	{"gateway upstream cache", `
		WithErrorHandler(nil)
		WithLogger(nil)
		WithMeterProvider(nil)
		WithPropagator(nil)
		WithTracerProvider(nil)`},
	{"gateway upstream service cache", `
		WithCacheCookies()
		WithCacheKeyCookies("x")
		WithCacheKeyHeaders("X")
		WithCachePartition(nil)
		WithCacheShare(1)
		WithCacheStatusKey()
		WithCollapseTimeout(1)
		WithDefaultTTL(1)
		WithIgnoredQuery("x")
		WithMaxStale(1)
		WithNegativeTTL(1)
		WithSortedQuery()
		WithStaleIfError(1)
		WithStaleWhileRevalidate(1)
		WithTargetedCacheControl("X-Cache-Control")
		WithoutCacheStatus()
		WithoutClientCacheControl()`},
	{"cache", `
		WithBackgroundRefresh()
		WithMaxBytes(1)
		WithMaxObjectBytes(1)`},
}

func TestOptionsCompileInTheirScopeOnly(t *testing.T) {
	known := map[string]bool{}
	for _, scope := range optionScopes {
		for option := range strings.Lines(strings.TrimSpace(scope.options)) {
			option = strings.TrimSpace(option)
			name, _, _ := strings.Cut(option, "(")
			known[name] = true
			t.Run(name, func(t *testing.T) {
				for home, call := range optionHomes {
					err := compile(t, fmt.Sprintf(call, "gateway."+option))
					if slices.Contains(strings.Fields(scope.homes), home) {
						assert.NoError(t, err)
					} else {
						assert.ErrorContains(t, err, "does not implement", "%s compiles as an option of a %s", option, home)
					}
				}
			})
		}
	}
	var exported []string
	for _, name := range gatewayPackage(t).Scope().Names() {
		if strings.HasPrefix(name, "With") {
			exported = append(exported, name)
		}
	}
	assert.Equal(t, exported, slices.Sorted(maps.Keys(known)), "each option has a row")
}

// A pair that names no option would contradict nothing, and nobody would see that.
func TestContradictionsAreOfOptions(t *testing.T) {
	pairs := 0
	for _, f := range sourceFiles(t) {
		if f.folder != "internal/options" || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if row, ok := n.(*ast.CompositeLit); ok && row.Type == nil {
				pairs++
				for _, e := range row.Elts[:2] {
					assert.NotNil(t, gatewayPackage(t).Scope().Lookup(literal(e)), literal(e))
				}
			}
			return true
		})
	}
	assert.Greater(t, pairs, 40)
}

func TestConstructorsTakeOptionsOnly(t *testing.T) {
	for _, call := range optionHomes {
		assert.NoError(t, compile(t, fmt.Sprintf(call, "")))
		for _, argument := range []string{`"x"`, `1`, `func() {}`, `foreign{}`, `&foreign{}`, `new(gateway.Cache)`, `gateway.RoundRobin()`, `gateway.Replica{}`} {
			assert.Error(t, compile(t, fmt.Sprintf(call, argument)), "%s", argument)
		}
	}
	assert.Error(t, compile(t, `gateway.New("a", "http://a")`))
	assert.Error(t, compile(t, `gateway.NewUpstream(gateway.WithTimeout(1))`))
	assert.Error(t, compile(t, `gateway.NewCache(1 << 20)`))
	assert.Error(t, compile(t, `gateway.WithReplicas("http://b")`))
	for _, balancing := range []string{`"round robin"`, `1`, `nil`, `foreign{}`} {
		assert.Error(t, compile(t, `gateway.WithBalancing(`+balancing+`)`), "the ways to balance are a closed set")
	}
}

// compile type-checks one expression of a user's, who has a type that tries to
// be an option of every kind.
func compile(t *testing.T, expression string) error {
	t.Helper()
	source := `package user
		import "` + modulePath + `"
		type foreign struct{}
		func (foreign) applyGateway(any) {}
		func (foreign) applyUpstream(any) {}
		func (foreign) applyService(any) {}
		func (foreign) applyCache(any) {}
		func use(...any) {}
		func user() { use(` + expression + `) }`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "user.go", source, parser.SkipObjectResolution)
	require.NoError(t, err)
	config := types.Config{Importer: compiled(t)}
	_, err = config.Check("user", fset, []*ast.File{file}, nil)
	return err
}

func gatewayPackage(t *testing.T) *types.Package {
	t.Helper()
	p, err := compiled(t).Import(modulePath)
	require.NoError(t, err)
	return p
}

// compiled imports what the go command has built.
var compiled = onceFor(func(t *testing.T) types.Importer {
	packages := listed(t)
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if p := packages[path]; p != nil && p.Export != "" {
			return os.Open(p.Export)
		}
		return nil, fmt.Errorf("%q is not built", path)
	})
})
