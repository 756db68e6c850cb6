package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const (
	w3cTrace  = "0af7651916cd43dd8448eb211c80319c"
	w3cParent = "b7ad6b7169203331"
	w3cGood   = "00-" + w3cTrace + "-" + w3cParent + "-01"
)

// begun is a trace that does not go on with the client's.
const begun = "begun"

// traceContexts has a row for each rule of the W3C's recommendation on what
// comes in (Trace Context §3.2, §3.3, §4.3), with what goes out.
var traceContexts = []struct {
	what  string
	lines []string
	flags string // of what goes out; begun: another trace
	state string // the tracestate that goes out; "": no such line
}{
	{"none", nil, begun, ""},
	{"sampled", []string{"traceparent: " + w3cGood}, "01", ""},
	{"not sampled", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-00"}, "00", ""},
	{"random", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-03"}, "03", ""},
	{"a name in any case", []string{"TraceParent: " + w3cGood, "TRACESTATE: a=1"}, "01", "a=1"},
	{"white space around", []string{"traceparent: \t " + w3cGood + " \t", "tracestate: \t a=1 \t"}, "01", "a=1"},

	{"version ff", []string{"traceparent: ff-" + w3cTrace + "-" + w3cParent + "-01"}, begun, ""},
	{"version of one digit", []string{"traceparent: 0-" + w3cTrace + "-" + w3cParent + "-01"}, begun, ""},
	{"version of letters", []string{"traceparent: .0-" + w3cTrace + "-" + w3cParent + "-01"}, begun, ""},
	{"version 00 and more", []string{"traceparent: " + w3cGood + "-more"}, begun, ""},
	{"version 00 and a dash", []string{"traceparent: " + w3cGood + "-"}, begun, ""},
	{"a later version", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-01"}, "01", ""},
	{"a later version and more", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-01-what-the-future-will-be"}, "01", ""},
	{"a later version and a dash", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-01-"}, "01", ""},
	{"a later version, and more without a dash", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-01.what"}, begun, ""},
	{"a later version's flags", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-ff"}, "03", ""},

	{"a trace id of zeros", []string{"traceparent: 00-00000000000000000000000000000000-" + w3cParent + "-01"}, begun, ""},
	{"a parent id of zeros", []string{"traceparent: 00-" + w3cTrace + "-0000000000000000-01"}, begun, ""},
	{"a trace id in upper case", []string{"traceparent: 00-" + strings.ToUpper(w3cTrace) + "-" + w3cParent + "-01"}, begun, ""},
	{"a parent id in upper case", []string{"traceparent: 00-" + w3cTrace + "-" + strings.ToUpper(w3cParent) + "-01"}, begun, ""},
	{"a trace id of other letters", []string{"traceparent: 00-.af7651916cd43dd8448eb211c80319c-" + w3cParent + "-01"}, begun, ""},
	{"a parent id of other letters", []string{"traceparent: 00-" + w3cTrace + "-.7ad6b7169203331-01"}, begun, ""},
	{"a trace id too long", []string{"traceparent: 00-" + w3cTrace + "0-" + w3cParent + "-01"}, begun, ""},
	{"a trace id too short", []string{"traceparent: 00-" + w3cTrace[1:] + "-" + w3cParent + "-01"}, begun, ""},
	{"a parent id too long", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "0-01"}, begun, ""},
	{"a parent id too short", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent[1:] + "-01"}, begun, ""},
	{"flags of other letters", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-.0"}, begun, ""},
	{"flags in upper case", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-0A"}, begun, ""},
	{"flags too long", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-001"}, begun, ""},
	{"flags too short", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-1"}, begun, ""},
	{"flags that are reserved", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-fd"}, "01", ""},
	{"flags that are reserved, not sampled", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent + "-08"}, "00", ""},
	{"no flags", []string{"traceparent: 00-" + w3cTrace + "-" + w3cParent}, begun, ""},
	{"empty", []string{"traceparent:"}, begun, ""},
	{"other dashes", []string{"traceparent: " + strings.ReplaceAll(w3cGood, "-", "_")}, begun, ""},
	{"60 kB", []string{"traceparent: cc-" + w3cTrace + "-" + w3cParent + "-01-" + strings.Repeat("x", 60_000)}, "01", ""},

	{"twice the same", []string{"traceparent: " + w3cGood, "traceparent: " + w3cGood}, begun, ""},
	{"two", []string{"traceparent: " + w3cGood, "traceparent: 00-" + w3cTrace + "-00f067aa0ba902b7-01", "tracestate: a=1"}, begun, ""},
	{"two in one line", []string{"traceparent: " + w3cGood + "," + w3cGood}, begun, ""},
	{"a good one and an empty one", []string{"traceparent: " + w3cGood, "traceparent:"}, begun, ""},

	{"state without a parent", []string{"tracestate: a=1"}, begun, ""},
	{"state with a bad parent", []string{"traceparent: " + w3cGood + "x", "tracestate: a=1,b=2"}, begun, ""},
	{"state", []string{"traceparent: " + w3cGood, "tracestate: a=1,b=2"}, "01", "a=1,b=2"},
	{"state before the parent", []string{"tracestate: a=1,b=2", "traceparent: " + w3cGood}, "01", "a=1,b=2"},
	{"state in two lines", []string{"traceparent: " + w3cGood, "tracestate: a=1,b=2", "tracestate: c=3"}, "01", "a=1,b=2,c=3"},
	{"state in lines around others", []string{"tracestate: z=1", "traceparent: " + w3cGood, "tracestate: y=2", "x: 1", "tracestate: a=3"}, "01", "z=1,y=2,a=3"},
	{"state and empty lines", []string{"traceparent: " + w3cGood, "tracestate:", "tracestate: a=1", "tracestate:"}, "01", "a=1"},
	{"empty state", []string{"traceparent: " + w3cGood, "tracestate:"}, "01", ""},
	{"empty members", []string{"traceparent: " + w3cGood, "tracestate: ,a=1,,b=2,"}, "01", "a=1,b=2"},
	{"members of white space", []string{"traceparent: " + w3cGood, "tracestate: a=1, \t ,b=2"}, "01", "a=1,b=2"},
	{"white space around members", []string{"traceparent: " + w3cGood, "tracestate: a=1 \t , \t b=2, \t c=3"}, "01", "a=1,b=2,c=3"},
	{"white space in a value", []string{"traceparent: " + w3cGood, "tracestate: a=1 1,b=2"}, "01", "a=1 1,b=2"},
	{"white space in a key", []string{"traceparent: " + w3cGood, "tracestate: a b=1"}, "01", ""},
	{"white space after a key", []string{"traceparent: " + w3cGood, "tracestate: a =1"}, "01", ""},
	{"a vendor's key", []string{"traceparent: " + w3cGood, "tracestate: fw529a3039@dt=FfAc-Ks1,0t@v=1"}, "01", "fw529a3039@dt=FfAc-Ks1,0t@v=1"},
	{"a vendor's key twice split", []string{"traceparent: " + w3cGood, "tracestate: a@b@c=1"}, "01", ""},
	{"a vendor without a tenant", []string{"traceparent: " + w3cGood, "tracestate: @v=1"}, "01", ""},
	{"a tenant without a vendor", []string{"traceparent: " + w3cGood, "tracestate: t@=1"}, "01", ""},
	{"the longest vendor's key", []string{"traceparent: " + w3cGood, "tracestate: " + strings.Repeat("t", 241) + "@" + strings.Repeat("v", 14) + "=1"}, "01",
		strings.Repeat("t", 241) + "@" + strings.Repeat("v", 14) + "=1"},
	{"a tenant too long", []string{"traceparent: " + w3cGood, "tracestate: " + strings.Repeat("t", 242) + "@v=1"}, "01", ""},
	{"a vendor too long", []string{"traceparent: " + w3cGood, "tracestate: t@" + strings.Repeat("v", 15) + "=1"}, "01", ""},
	{"all that a key may hold", []string{"traceparent: " + w3cGood, "tracestate: a0_-*/z=1"}, "01", "a0_-*/z=1"},
	{"a key in upper case", []string{"traceparent: " + w3cGood, "tracestate: A=1"}, "01", ""},
	{"a key of other letters", []string{"traceparent: " + w3cGood, "tracestate: a.b=1"}, "01", ""},
	{"the longest key", []string{"traceparent: " + w3cGood, "tracestate: " + strings.Repeat("k", 256) + "=1"}, "01", strings.Repeat("k", 256) + "=1"},
	{"a key too long", []string{"traceparent: " + w3cGood, "tracestate: " + strings.Repeat("k", 257) + "=1"}, "01", ""},
	{"the longest value", []string{"traceparent: " + w3cGood, "tracestate: a=" + strings.Repeat("v", 256)}, "01", "a=" + strings.Repeat("v", 256)},
	{"a value too long", []string{"traceparent: " + w3cGood, "tracestate: a=" + strings.Repeat("v", 257)}, "01", ""},
	{"no value", []string{"traceparent: " + w3cGood, "tracestate: a="}, "01", ""},
	{"no key", []string{"traceparent: " + w3cGood, "tracestate: =1"}, "01", ""},
	{"no equals sign", []string{"traceparent: " + w3cGood, "tracestate: a"}, "01", ""},
	{"two equals signs", []string{"traceparent: " + w3cGood, "tracestate: a=1=2"}, "01", ""},
	{"a bad member among good ones", []string{"traceparent: " + w3cGood, "tracestate: a=1,B=2,c=3"}, "01", ""},
	{"a key twice", []string{"traceparent: " + w3cGood, "tracestate: a=1,b=2,a=3"}, "01", ""},
	{"a key twice, in two lines", []string{"traceparent: " + w3cGood, "tracestate: a=1", "tracestate: a=1"}, "01", ""},
	{"32 members", []string{"traceparent: " + w3cGood, "tracestate: " + members(32)}, "01", members(32)},
	{"32 members in two lines", []string{"traceparent: " + w3cGood, "tracestate: " + members(20), "tracestate: " + strings.TrimPrefix(members(32), members(20)+",")}, "01", members(32)},
	{"33 members", []string{"traceparent: " + w3cGood, "tracestate: " + members(33)}, "01", ""},
	{"over 512 letters", []string{"traceparent: " + w3cGood, "tracestate: a=" + strings.Repeat("1", 250) + ",b=" + strings.Repeat("2", 250) + ",c=" + strings.Repeat("3", 250)}, "01",
		"a=" + strings.Repeat("1", 250) + ",b=" + strings.Repeat("2", 250) + ",c=" + strings.Repeat("3", 250)},
	{"10 kB", []string{"traceparent: " + w3cGood, "tracestate: a=1," + strings.Repeat("b=2,", 2500)}, "01", ""},
	{"100 lines", append([]string{"traceparent: " + w3cGood}, slices.Repeat([]string{"tracestate: a=1"}, 90)...), "01", ""},
}

func members(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("k%d=%d", i, i)
	}
	return strings.Join(list, ",")
}

var traceFields = regexp.MustCompile(`(?im)^(traceparent|tracestate|baggage):[ \t]*(.*?)[ \t]*\r$`)

// What goes on of a client's trace context, and what is sent on, byte by byte.
func TestTraceContextTable(t *testing.T) {
	up := testnet.Upstream(t, testnet.Reply(200, "", "ok"))
	o := newObserved(t)
	gw := o.gateway(gateway.WithPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		gateway.WithMaxHeaderBytes(128<<10), gateway.WithService("a", up.URL))
	addr := serveAt(t, gw)
	for _, tt := range traceContexts {
		t.Run(tt.what, func(t *testing.T) {
			o.spans.Reset()
			before := len(up.JournalBytes())
			require.Equal(t, 200, testnet.Do(t, addr, testnet.Get("/a/x", tt.lines...)).Status)
			sent := map[string][]string{}
			for _, line := range traceFields.FindAllSubmatch(up.JournalBytes()[before:], -1) {
				name := strings.ToLower(string(line[1]))
				sent[name] = append(sent[name], string(line[2]))
			}
			require.Len(t, sent["traceparent"], 1)
			parts := strings.Split(sent["traceparent"][0], "-")
			require.Len(t, parts, 4)
			assert.Equal(t, "00", parts[0], "the version that we speak")
			assert.NotEqual(t, w3cParent, parts[2], "the parent is a span of ours")
			if tt.flags == begun {
				assert.NotEqual(t, w3cTrace, parts[1])
				assert.Regexp(t, "^0[13]$", parts[3])
			} else {
				assert.Equal(t, w3cTrace, parts[1])
				assert.Equal(t, tt.flags, parts[3])
			}
			if tt.state == "" {
				assert.Empty(t, sent["tracestate"])
			} else {
				assert.Equal(t, []string{tt.state}, sent["tracestate"])
			}
			if parts[3] == "00" {
				assert.Empty(t, o.spans.GetSpans())
				return
			}
			attempt, request := o.pair(t)
			assert.Equal(t, parts[1], request.SpanContext.TraceID().String())
			assert.Equal(t, parts[2], attempt.SpanContext.SpanID().String())
			assert.Equal(t, tt.flags != begun, request.Parent.IsValid())
			if tt.flags != begun {
				assert.Equal(t, w3cParent, request.Parent.SpanID().String())
				assert.True(t, request.Parent.IsRemote())
			}
		})
	}
}

// pair waits for the one CLIENT span and the one SERVER span above it.
func (o *observed) pair(t *testing.T) (attempt, request tracetest.SpanStub) {
	t.Helper()
	testnet.Settle(t, "both spans have ended", func() bool { return len(o.spans.GetSpans()) == 2 })
	spans := o.spans.GetSpans()
	slices.SortFunc(spans, func(a, b tracetest.SpanStub) int { return int(b.SpanKind) - int(a.SpanKind) })
	attempt, request = spans[0], spans[1]
	require.Equal(t, trace.SpanKindClient, attempt.SpanKind)
	require.Equal(t, trace.SpanKindServer, request.SpanKind)
	require.Equal(t, request.SpanContext.SpanID(), attempt.Parent.SpanID())
	return attempt, request
}

// serveAt serves h at an address.
func serveAt(t *testing.T, h http.Handler) string {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 256 << 10}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

// sharingCases are row 157: what clients put in baggage and trace context is
// bounded, and goes to whom it may.
func sharingCases() (cases []attackCase) {
	const own = "00-own" // a traceparent of another trace than the client's
	goesOn, asked := []string{"traceparent", "tracestate"}, []string{"baggage", "traceparent", "tracestate"}
	long := strings.Repeat("x", 64<<10)
	for _, tt := range []struct {
		what, service, baggage string
		lines                  int
		state                  string
		want                   []string // the fields that the service is sent, sorted
	}{
		{"nobody has asked for baggage", "plain", "canary", 1, "a=1", goesOn},
		{"baggage of 64 KiB", "plain", long, 1, "a=1", goesOn},
		{"baggage of 90 lines", "plain", "canary", 90, "a=1", goesOn},
		{"baggage was asked for", "asked", "canary", 1, "a=1", asked},
		{"baggage of 8 kB was asked for", "asked", long[:8000], 1, "a=1", asked},
		{"baggage of 64 KiB was asked for", "asked", long, 1, "a=1", goesOn},
		{"baggage of 90 lines was asked for", "asked", long[:100], 90, "a=1", goesOn},
		{"a tracestate of 10 kB", "plain", "canary", 1, strings.Repeat("b=2,", 2500), goesOn[:1]},
		{"a public endpoint", "public", "canary", 1, "a=1", []string{own}},
		{"an external service", "external", "canary", 1, "a=1", nil},
		{"an external service, and 64 KiB", "external", long, 1, strings.Repeat("b=2,", 2500), nil},
		{"the service drops what it inherits", "again", "canary", 1, "a=1", asked},
		{"the service inherits", "none", "canary", 1, "a=1", nil},
		{"the service drops some of what it inherits", "bagless", "canary", 1, "a=1", []string{own}},
	} {
		cases = append(cases, attackCase{157, tt.what, func(t *testing.T) {
			o, up, addr := sharing(t)
			lines := append(slices.Repeat([]string{"Baggage: user=" + tt.baggage}, tt.lines), "Traceparent: "+w3cGood, "Tracestate: "+tt.state)
			require.Equal(t, 200, testnet.Do(t, addr, testnet.Get("/"+tt.service+"/x", lines...)).Status)
			var sent []string
			size := 0
			for _, line := range traceFields.FindAllSubmatch(up.JournalBytes(), -1) {
				name := strings.ToLower(string(line[1]))
				if name == "traceparent" && !strings.Contains(string(line[2]), w3cTrace) {
					name = own
				}
				sent = append(sent, name)
				size += len(line[2])
			}
			slices.Sort(sent)
			assert.Equal(t, tt.want, sent)
			assert.LessOrEqual(t, size, 9<<10)
			attempt, request := o.pair(t)
			assert.Equal(t, request.SpanContext.TraceID(), attempt.SpanContext.TraceID(), "attempts have their spans nevertheless")
			if !slices.Contains([]string{"public", "none", "bagless"}, tt.service) {
				assert.Empty(t, request.Links)
				return
			}
			assert.False(t, request.Parent.IsValid())
			require.Len(t, request.Links, 1)
			assert.Equal(t, w3cTrace, request.Links[0].SpanContext.TraceID().String())
			assert.Equal(t, w3cParent, request.Links[0].SpanContext.SpanID().String())
		}})
	}
	return cases
}

// sharing serves services that share what they know in different ways.
func sharing(t *testing.T) (o *observed, up *testnet.Up, addr string) {
	up = testnet.Upstream(t, testnet.Reply(200, "", "ok"))
	o = newObserved(t)
	w3c := gateway.WithPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	inherits := o.gateway(w3c, gateway.WithPublicEndpoint(), gateway.WithoutPropagation(),
		gateway.WithService("again", up.URL, gateway.WithoutPublicEndpoint(), gateway.WithPropagation(), gateway.WithBaggage()),
		gateway.WithService("none", up.URL),
		gateway.WithService("bagless", up.URL, gateway.WithPropagation(), gateway.WithoutBaggage()))
	gw := o.gateway(w3c, gateway.WithMaxHeaderBytes(128<<10),
		gateway.WithService("plain", up.URL),
		gateway.WithService("public", up.URL, gateway.WithPublicEndpoint()),
		gateway.WithService("external", up.URL, gateway.WithoutPropagation()),
		gateway.WithService("asked", up.URL, gateway.WithBaggage()))
	return o, up, serveAt(t, gw.Wrap(inherits))
}

// Requests for no service are as little to be trusted as the others.
func TestAPublicEndpointForUnknownServices(t *testing.T) {
	o := newObserved(t)
	gw := o.gateway(gateway.WithPropagator(propagation.TraceContext{}), gateway.WithPublicEndpoint(), gateway.WithService("a", target))
	assert.Equal(t, 404, handle(t, gw, testnet.Get("/zz/x", "Traceparent: "+w3cGood), nil).status)
	require.Len(t, o.spans.GetSpans(), 1)
	span := o.spans.GetSpans()[0]
	assert.False(t, span.Parent.IsValid())
	require.Len(t, span.Links, 1)
	assert.Equal(t, w3cTrace, span.Links[0].SpanContext.TraceID().String())
}

// Where the router says nothing, the app may.
func TestMountPath(t *testing.T) {
	rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}))
	o := newObserved(t)
	gw := o.gateway(gateway.WithMountPath("/api/v1"), gateway.WithService("a", target, rt))
	opts := []gateway.UpstreamOption{rt, gateway.WithMountPath("/files")}
	for _, opt := range o.opts {
		opts = append(opts, opt)
	}
	up, err := gateway.NewUpstream("f", target, opts...)
	require.NoError(t, err)
	defer func() { assert.NoError(t, up.Shutdown(t.Context())) }()
	for _, tt := range []struct {
		h                http.Handler
		target, span     string
		pattern, service string
	}{
		{http.StripPrefix("/api/v1", gw), "/api/v1/a/x", "GET /api/v1/a/{path...}", "", "a"},
		{gw.Upstream("a"), "/x", "GET /{path...}", "", "a"},
		{up, "/files/x", "GET /files/{path...}", "", "f"},
	} {
		o.spans.Reset()
		assert.Equal(t, 200, handle(t, tt.h, testnet.Get(tt.target), nil).status)
		_, request := o.pair(t)
		assert.Equal(t, tt.span, request.Name)
	}
}

// kind returns the spans of a kind that have ended.
func (o *observed) kind(k trace.SpanKind) (spans []tracetest.SpanStub) {
	for _, s := range o.spans.GetSpans() {
		if s.SpanKind == k {
			spans = append(spans, s)
		}
	}
	return spans
}

// A refresh behind requests is in nobody's trace: it names its cause.
func TestARefreshLinksToItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := roundTripper(func(r *http.Request) (*http.Response, error) {
			h := http.Header{"Cache-Control": {"public, max-age=1, stale-while-revalidate=600"}}
			return &http.Response{StatusCode: 200, Header: h, Body: http.NoBody, Request: r}, nil
		})
		for _, inside := range []bool{false, true} {
			o := newObserved(t)
			cache, err := gateway.NewCache()
			require.NoError(t, err)
			gw := o.gateway(gateway.WithCache(cache), gateway.WithService("a", target, gateway.WithTransport(rt)))
			ask := func() {
				ctx := t.Context()
				if inside {
					ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
						TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
					}))
				}
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gw.ServeHTTP(w, r.WithContext(ctx)) })
				assert.Equal(t, 200, handle(t, h, testnet.Get("/a/x"), nil).status)
			}
			ask()
			time.Sleep(2 * time.Second)
			o.spans.Reset()
			ask()
			synctest.Wait()
			kind := trace.SpanKindServer
			if inside {
				kind = trace.SpanKindInternal
			}
			requests, attempts := o.kind(kind), o.kind(trace.SpanKindClient)
			require.Len(t, requests, 1)
			require.Len(t, attempts, 1)
			assert.False(t, attempts[0].Parent.IsValid())
			assert.NotEqual(t, requests[0].SpanContext.TraceID(), attempts[0].SpanContext.TraceID())
			require.Len(t, attempts[0].Links, 1)
			assert.Equal(t, requests[0].SpanContext.SpanID(), attempts[0].Links[0].SpanContext.SpanID())
			require.NoError(t, gw.Shutdown(context.Background()))
			require.NoError(t, cache.Shutdown(context.Background()))
		}
	})
}

// Who was answered with what another had asked for names the attempt that it came
// of, whether it came off or not.
func TestFollowersLinkToWhatAnsweredThem(t *testing.T) {
	for name, answer := range map[string]struct {
		status       int
		header, body string
	}{
		"shared":       {200, "max-age=60", "ok"},
		"shared later": {200, "max-age=60", strings.Repeat("x", 1<<20)},
		"failed":       {500, "no-store", ""},
		"unanswered":   {0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := roundTripper(func(r *http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					if answer.status == 0 {
						return nil, net.ErrClosed
					}
					return &http.Response{
						StatusCode: answer.status, Header: http.Header{"Cache-Control": {answer.header}}, ContentLength: int64(len(answer.body)),
						Body: io.NopCloser(strings.NewReader(answer.body)), Request: r,
					}, nil
				})
				o := newObserved(t)
				cache, err := gateway.NewCache()
				require.NoError(t, err)
				gw := o.gateway(gateway.WithCache(cache), gateway.WithoutRetries(), gateway.WithService("a", target, gateway.WithTransport(rt)))
				var done sync.WaitGroup
				for range 3 {
					done.Go(func() { gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/a/x", http.NoBody)) })
					time.Sleep(time.Millisecond)
				}
				done.Wait()
				synctest.Wait()
				requests, attempts := o.kind(trace.SpanKindServer), o.kind(trace.SpanKindClient)
				require.Len(t, requests, 3)
				require.Len(t, attempts, 1)
				leaders := 0
				for _, r := range requests {
					if r.SpanContext.SpanID() == attempts[0].Parent.SpanID() {
						leaders++
						assert.Empty(t, r.Links)
						continue
					}
					assert.NotEqual(t, r.SpanContext.TraceID(), attempts[0].SpanContext.TraceID())
					require.Len(t, r.Links, 1)
					assert.Equal(t, attempts[0].SpanContext.SpanID(), r.Links[0].SpanContext.SpanID())
				}
				assert.Equal(t, 1, leaders)
				require.NoError(t, gw.Shutdown(context.Background()))
				require.NoError(t, cache.Shutdown(context.Background()))
			})
		})
	}
}
