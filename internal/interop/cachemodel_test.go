package interop_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/embedgw/gateway"
)

// reply is what the upstream of a step would answer.
type reply struct {
	status    int
	public    bool
	private   bool
	noStore   bool
	noCache   bool
	revalid   bool // must-revalidate
	maxAge    int  // this and the next three in seconds; -1: absent
	sMaxAge   int
	expires   int // after Date
	age       int
	skew      int // how long ago Date was; -1: no Date
	vary      []string
	setCookie bool
	chunked   bool
	style     int // how Cache-Control is written
	body      string
}

// ask is one request.
type ask struct {
	method, target string
	fields         map[string]string // Accept-Language, X-Tenant, Authorization, Cookie, Range
	noCache        bool
	noStore        bool
	onlyIfCached   bool
	maxAge         int // -1: absent
	minFresh       int
}

func seconds(t *rapid.T, name string) int {
	return rapid.SampledFrom([]int{-1, -1, -1, 60, 10, 3, 1, 0}).Draw(t, name)
}

// seldom is true one time in n.
func seldom(t *rapid.T, n int, name string) bool { return rapid.IntRange(0, n-1).Draw(t, name) == n-1 }

func drawReply(t *rapid.T) *reply {
	p := &reply{
		status: rapid.SampledFrom([]int{200, 200, 200, 200, 200, 200, 204, 302, 404, 500, 503}).Draw(t, "status"),
		public: seldom(t, 4, "public"), private: seldom(t, 12, "private"), noStore: seldom(t, 12, "no-store"),
		noCache: seldom(t, 12, "no-cache"), revalid: seldom(t, 6, "must-revalidate"),
		maxAge: seconds(t, "max-age"), sMaxAge: seconds(t, "s-maxage"), expires: seconds(t, "expires"), age: rapid.SampledFrom([]int{-1, -1, -1, 0, 1, 10}).Draw(t, "age"),
		skew:      rapid.SampledFrom([]int{-1, 0, 0, 0, 2, 20}).Draw(t, "skew"),
		vary:      rapid.SampledFrom([][]string{nil, nil, {"Accept-Language"}, {"X-Tenant"}, {"x-tenant", "accept-language"}, {"*"}}).Draw(t, "vary"),
		setCookie: seldom(t, 12, "Set-Cookie"), chunked: rapid.Bool().Draw(t, "chunked"), style: rapid.IntRange(0, 2).Draw(t, "style"),
		body: strings.Repeat(".", rapid.SampledFrom([]int{0, 1, 5000, 100_000}).Draw(t, "padding")),
	}
	if p.skew < 0 {
		p.expires = -1 // counted from when the response came, which is no whole second
	}
	return p
}

func drawAsk(t *rapid.T) *ask {
	a := &ask{
		method: rapid.SampledFrom([]string{"GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "DELETE"}).Draw(t, "method"),
		target: rapid.SampledFrom([]string{"/s/a", "/s/a?x", "/s/b"}).Draw(t, "target"),
		fields: map[string]string{}, maxAge: -1, minFresh: -1,
	}
	for _, f := range []struct {
		name   string
		values []string
	}{
		{"Accept-Language", []string{"", "de", "en"}},
		{"X-Tenant", []string{"", "1"}},
		{"Authorization", []string{"", "", "", "", "Bearer canary-1234"}},
		{"Cookie", []string{"", "", "", "", "id=1"}},
		{"Range", []string{"", "", "", "", "", "", "", "bytes=0-1"}},
	} {
		if v := rapid.SampledFrom(f.values).Draw(t, f.name); v != "" {
			a.fields[f.name] = v
		}
	}
	switch rapid.IntRange(0, 9).Draw(t, "control") {
	case 5:
		a.noCache = true
	case 6:
		a.noStore = true
	case 7:
		a.onlyIfCached = true
	case 8:
		a.maxAge = rapid.SampledFrom([]int{0, 1, 5, 60}).Draw(t, "max-age")
	case 9:
		a.minFresh = rapid.SampledFrom([]int{0, 1, 5, 60}).Draw(t, "min-fresh")
	}
	return a
}

// request writes the ask out.
func (a *ask) request() *http.Request {
	r := httptest.NewRequest(a.method, a.target, nil)
	for name, value := range a.fields {
		r.Header.Set(name, value)
	}
	for directive, on := range map[string]bool{
		"no-cache": a.noCache, "no-store": a.noStore, "only-if-cached": a.onlyIfCached,
		fmt.Sprintf("max-age=%d", a.maxAge): a.maxAge >= 0, fmt.Sprintf("min-fresh=%d", a.minFresh): a.minFresh >= 0,
	} {
		if on {
			r.Header.Add("Cache-Control", directive)
		}
	}
	return r
}

// response writes the reply out, in one of several ways that mean the same.
func (p *reply) response(r *http.Request, now time.Time) *http.Response {
	h := http.Header{}
	var control []string
	for _, d := range []struct {
		on   bool
		text string
	}{
		{p.public, "public"}, {p.private, "private"}, {p.noStore, "no-store"}, {p.noCache, "no-cache"}, {p.revalid, "must-revalidate"},
		{p.maxAge >= 0, fmt.Sprintf("max-age=%d", p.maxAge)}, {p.sMaxAge >= 0, fmt.Sprintf("s-maxage=%d", p.sMaxAge)},
	} {
		if d.on {
			control = append(control, d.text)
		}
	}
	switch {
	case len(control) == 0:
	case p.style == 0:
		h.Set("Cache-Control", strings.Join(control, ", "))
	case p.style == 1:
		h["Cache-Control"] = control
	default:
		slices.Reverse(control)
		h.Set("Cache-Control", `,x="no-store, private" ,`+strings.ToUpper(strings.Join(control, "\t,")))
	}
	date := now.Add(-time.Duration(max(p.skew, 0)) * time.Second)
	if p.skew >= 0 {
		h.Set("Date", date.UTC().Format(http.TimeFormat))
	}
	if p.expires >= 0 {
		h.Set("Expires", date.Add(time.Duration(p.expires)*time.Second).UTC().Format(http.TimeFormat))
	}
	if p.age >= 0 {
		h.Set("Age", fmt.Sprint(p.age))
	}
	if p.setCookie {
		h.Set("Set-Cookie", "id=2")
	}
	if len(p.vary) > 0 {
		h.Set("Vary", strings.Join(p.vary, ","))
	}
	resp := &http.Response{
		StatusCode: p.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, Request: r,
		ContentLength: int64(len(p.body)), Body: io.NopCloser(strings.NewReader(p.body)),
	}
	switch {
	case r.Method == http.MethodHead || p.status == http.StatusNoContent:
		resp.ContentLength, resp.Body = 0, http.NoBody
	case p.chunked:
		resp.ContentLength, resp.TransferEncoding = -1, []string{"chunked"}
	}
	return resp
}

// model is a shared cache in a few lines: what RFC 9111 lets the gateway do, as
// far as it does it.
type model struct {
	stored map[string][]entry // by target, the youngest last
	seen   map[string]int     // outcomes
}

type entry struct {
	vary     []string
	values   []string
	body     string
	at       time.Time
	age      time.Duration // then
	lifetime time.Duration
}

func (a *ask) values(names []string) (values []string) {
	for _, name := range names {
		value, ok := a.fields[http.CanonicalHeaderKey(name)]
		values = append(values, fmt.Sprint(ok, value))
	}
	return values
}

// outcome is what a step must come to.
type outcome struct {
	fwd    string // "": a hit
	body   string
	age    time.Duration
	called bool
	stored bool
}

func (m *model) step(a *ask, p *reply, now time.Time) (o outcome) {
	defer func() { m.seen[fmt.Sprintf("fwd=%s stored=%t called=%t", o.fwd, o.stored, o.called)]++ }()
	switch {
	case a.method != "GET" && a.method != "HEAD":
		if p.status < 400 {
			delete(m.stored, a.target) // RFC 9111 §4.4
		}
		return outcome{fwd: "method", body: p.body, called: true}
	case a.noStore, a.fields["Range"] != "":
		return outcome{fwd: "request", body: p.body, called: true}
	}
	o = outcome{fwd: "uri-miss", body: p.body, called: true}
	if len(m.stored[a.target]) > 0 {
		o.fwd = "vary-miss"
	}
	for _, e := range slices.Backward(m.stored[a.target]) {
		if !slices.Equal(a.values(e.vary), e.values) {
			continue
		}
		age := e.age + now.Sub(e.at)
		switch {
		case age >= e.lifetime: // RFC 9111 §4.2
			o.fwd = "stale"
		case a.noCache, a.maxAge == 0, a.maxAge > 0 && age > time.Duration(a.maxAge)*time.Second,
			a.minFresh >= 0 && e.lifetime-age < time.Duration(a.minFresh)*time.Second: // RFC 9111 §5.2.1
			o.fwd = "request"
		default:
			return outcome{body: e.body, age: age}
		}
		break
	}
	if a.onlyIfCached { // RFC 9111 §5.2.1.7
		o.called = false
		return o
	}
	if o.stored = m.storable(a, p); o.stored {
		m.store(a, p, now)
	}
	return o
}

// storable is RFC 9111 §3 and §3.5, and the package's rules for cookies.
func (m *model) storable(a *ask, p *reply) bool {
	shared := p.public || p.sMaxAge >= 0
	return a.method == "GET" && p.status == 200 &&
		!p.noStore && !p.private && !p.noCache &&
		!p.setCookie && (a.fields["Cookie"] == "" || shared) &&
		(a.fields["Authorization"] == "" || shared || p.revalid) &&
		!slices.Contains(p.vary, "*") &&
		p.lifetime() > p.initialAge()
}

func (m *model) store(a *ask, p *reply, now time.Time) {
	e := entry{vary: p.vary, values: a.values(p.vary), body: p.body, at: now, age: p.initialAge(), lifetime: p.lifetime()}
	m.stored[a.target] = append(slices.DeleteFunc(slices.Clone(m.stored[a.target]), func(old entry) bool {
		return slices.Equal(old.vary, e.vary) && slices.Equal(old.values, e.values)
	}), e)
}

// lifetime is RFC 9111 §4.2.1.
func (p *reply) lifetime() time.Duration {
	for _, s := range []int{p.sMaxAge, p.maxAge, p.expires} {
		if s >= 0 {
			return time.Duration(s) * time.Second
		}
	}
	return 0
}

// initialAge is RFC 9111 §4.2.3, over a network that takes no time.
func (p *reply) initialAge() time.Duration {
	return time.Duration(max(p.age, p.skew, 0)) * time.Second
}

// machine runs the gateway and the model side by side.
type machine struct {
	model
	gw    *gateway.Gateway
	cache *gateway.Cache
	next  *reply
	calls int
	n     int
}

// RoundTrip is the upstream.
func (m *machine) RoundTrip(r *http.Request) (*http.Response, error) {
	m.calls++
	return m.next.response(r, time.Now()), nil
}

func (m *machine) request(t *rapid.T) {
	a, p := drawAsk(t), drawReply(t)
	m.n++
	p.body = fmt.Sprint(m.n, p.body) // no two are alike
	m.next, m.calls = p, 0
	want := m.step(a, p, time.Now())

	rec := httptest.NewRecorder()
	m.gw.ServeHTTP(rec, a.request())
	synctest.Wait() // a long body is stored by a task
	got := ourStatus(t, rec.Header())
	require.Equal(t, want.fwd, got.fwd)
	require.Equal(t, want.fwd == "", got.hit)
	require.Equal(t, want.stored, got.stored)
	require.Equal(t, want.called, m.calls == 1)
	if want.fwd != "" && !want.called {
		require.Equal(t, http.StatusGatewayTimeout, rec.Code)
		return
	}
	if a.method == "HEAD" || want.called && p.status == http.StatusNoContent {
		want.body = ""
	}
	require.Equal(t, len(want.body), rec.Body.Len())
	require.True(t, want.body == rec.Body.String(), "another response's body")
	if got.hit {
		require.Equal(t, 200, rec.Code)
		require.Equal(t, fmt.Sprint(int(want.age.Seconds())), rec.Header().Get("Age"))
		require.NotEmpty(t, rec.Header().Get("Date"))
		require.Empty(t, rec.Header()["Set-Cookie"])
		require.Empty(t, rec.Header()["X-Request-Id"], "another request's")
	} else {
		require.Equal(t, p.status, rec.Code)
	}
}

// bubble keeps rapid from what a synctest bubble does not allow.
type bubble struct{ *testing.T }

// The cache does, step by step, what a model of a shared cache does: the same
// hits with the same bytes and ages, the same reasons for misses, the same
// responses stored.
func TestCacheFollowsItsModel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen, steps := map[string]int{}, 0
		rapid.Check(bubble{t}, func(rt *rapid.T) {
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // each check alike
			m := &machine{model: model{stored: map[string][]entry{}, seen: seen}}
			var err error
			m.cache, err = gateway.NewCache()
			require.NoError(rt, err)
			m.gw, err = gateway.New(gateway.WithCache(m.cache), gateway.WithTransport(m), gateway.WithoutRetries(),
				gateway.WithService("s", "http://upstream.invalid"))
			require.NoError(rt, err)
			defer func() { _, _ = shutdown(m.gw), shutdown(m.cache) }()
			rt.Repeat(map[string]func(*rapid.T){
				"requests": func(rt *rapid.T) {
					for range 4 {
						m.request(rt)
						steps++
					}
				},
				"wait": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 24).Draw(rt, "halves")) * time.Second / 2)
				},
				"clear": func(rt *rapid.T) {
					if seldom(rt, 4, "really") {
						m.cache.Clear()
						clear(m.stored)
					}
				},
				"": func(rt *rapid.T) {
					require.EqualValues(rt, len(m.stored), m.cache.Stats().Entries)
				},
			})
		})
		assert.GreaterOrEqual(t, steps, 2000)
		for _, o := range []string{
			"fwd= stored=false called=false", "fwd=method stored=false called=true",
			"fwd=request stored=false called=true", "fwd=request stored=true called=true", "fwd=stale stored=true called=true",
			"fwd=uri-miss stored=false called=false", "fwd=uri-miss stored=true called=true", "fwd=vary-miss stored=true called=true",
		} {
			assert.Positive(t, seen[o], "never seen: %s (%v)", o, seen)
		}
	})
}
