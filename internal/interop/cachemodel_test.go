package interop_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/embedgw/gateway"
)

// ask is one request.
type ask struct {
	method, target           string
	fields                   map[string]string // Accept-Language, X-Tenant, Authorization, Cookie
	control                  []directive
	pragma                   bool
	noneMatch, modifiedSince string
	match, rng, ifRange      string
}

// reply is how the upstream of a step behaves.
type reply struct {
	head
	down       bool
	status     int
	framing    int // length, chunks, the end of the connection
	body       []byte
	cut        bool // the body breaks off
	conditions int
	ranges     int
}

// What the upstream makes of conditions and ranges.
const (
	honest = iota
	never
	always // a 304, whatever was asked
)

// response is one answer of the upstream.
type response struct {
	head
	status       int
	body         []byte
	cut          bool
	framed       bool  // its end is proven
	sized        bool  // it has a Content-Length
	contentRange *span // of a 206 that says how long the whole is, which is total
	total        int
}

// seldom is true one time in n.
func seldom(t *rapid.T, n int, name string) bool { return rapid.IntRange(0, n-1).Draw(t, name) == n-1 }

// The upstream's clock began long before these.
var (
	oldDate     = time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC)
	youngerDate = time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC)
	dates       = []string{oldDate.Format(http.TimeFormat), youngerDate.Format(http.TimeFormat)}
)

const obsoleteDate = "Friday, 31-Dec-99 23:00:00 GMT" // youngerDate (RFC 9110 §5.6.7)

var (
	replyStatuses  = rapid.SampledFrom([]int{200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 203, 204, 299, 301, 302, 401, 404, 410, 429, 451, 500, 503, 503})
	replyDates     = rapid.SampledFrom([]int{0, 0, 0, 0, 0, 2, 20, -3, 99, 100})
	replyAges      = rapid.SampledFrom([]string{"", "", "", "", "", "0", "1", "10", "x", "3, 50", "-1"})
	replyExpires   = rapid.SampledFrom([]int{-1, -1, -1, -1, -1, -1, 60, 10, 3, 0, 100, 101, 102})
	replyTags      = rapid.SampledFrom([]string{"", "", "", `"1"`, `"1"`, `"2"`, `W/"1"`, `W/"2"`, `"3`, "4"})
	replyModified  = rapid.SampledFrom([]string{"", "", "", "", dates[0], dates[1], obsoleteDate, "yesterday"})
	replyVary      = rapid.SampledFrom([]string{"", "", "", "", "", "Accept-Language", "Accept-Language", "X-Tenant", "x-tenant, accept-language", "Authorization", "Cookie", "*", "X-Tenant, *", "Via", "Foo:"})
	replyBehaviour = rapid.SampledFrom([]int{honest, honest, honest, honest, honest, never, always})
	replySizes     = rapid.SampledFrom([]int{30, 30, 30, 30, 20, 1, 0, 5000, 100_000})
	replyFramings  = rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1, 1, 2})
	askMethods     = rapid.SampledFrom([]string{"GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD", "POST", "PUT", "OPTIONS", "BREW"})
	targets        = rapid.SampledFrom([]string{"/a", "/a", "/a", "/a?x", "/b"})
	askLanguages   = rapid.SampledFrom([]string{"", "", "", "de, en;q=0.5", "en;q=0.50 ,DE", "en"})
	askTags        = rapid.SampledFrom([]string{"", "", "", "", "", "", "", "", `"1"`, `W/"1"`, `"2", "1"`, "*"})
	askSince       = rapid.SampledFrom([]string{"", "", "", "", "", "", "", "", "", dates[0], dates[1], "soon"})
	askRanges      = rapid.SampledFrom([]string{"", "", "", "", "", "", "", "bytes=0-9", "bytes=10-19", "bytes=20-29", "bytes=5-", "bytes=-3", "bytes=0-1,5-6", "bytes=0-4,5-9", "bytes=900000-", "bytes=x", "items=0-1"})
	askIfRanges    = rapid.SampledFrom([]string{"", "", `"1"`, `W/"1"`, dates[0], dates[1]})
	directives     = rapid.SliceOfN(rapid.SampledFrom(responseDirectives), 0, 3)
	oddOnes        = rapid.SampledFrom(oddDirectives)
	targeted       = rapid.SampledFrom(targetedFields)
	wishes         = rapid.SliceOfN(rapid.SampledFrom(requestDirectives), 1, 2)
)

func drawReply(t *rapid.T, a *ask, now time.Time) *reply {
	p := &reply{
		status: replyStatuses.Draw(t, "status"), down: seldom(t, 10, "down"), conditions: replyBehaviour.Draw(t, "conditions"),
		framing: replyFramings.Draw(t, "framing"),
	}
	p.length = -1
	p.control = slices.Clone(directives.Draw(t, "Cache-Control"))
	switch rapid.IntRange(0, 11).Draw(t, "rarely") {
	case 6:
		d := targeted.Draw(t, "CDN-Cache-Control")
		p.targeted = &d
	case 7:
		p.control = append(p.control, oddOnes.Draw(t, "odd"))
	case 8:
		p.cookie = true
	case 9:
		p.cut = true
	case 10:
		p.location, p.contentLocation = targets.Draw(t, "Location"), targets.Draw(t, "Content-Location")
	case 11:
		p.length = rapid.SampledFrom([]int{30, 20}).Draw(t, "length")
	}
	if len(p.control) == 0 {
		p.control = nil
	}
	date := now
	switch skew := replyDates.Draw(t, "skew"); skew {
	case 99:
	case 100:
		p.date = "today"
	default:
		date = now.Add(-time.Duration(skew) * time.Second)
		p.date = date.Format(http.TimeFormat)
	}
	switch n := replyExpires.Draw(t, "expires"); n {
	case -1:
	case 100:
		p.expires = []string{"0"}
	case 101:
		p.expires = []string{dates[0], date.Add(time.Minute).Format(http.TimeFormat)}
	case 102:
		line := date.Add(time.Minute).Format(http.TimeFormat)
		p.expires = []string{line, line}
	default:
		p.expires = []string{date.Add(time.Duration(n) * time.Second).Format(http.TimeFormat)}
	}
	p.age, p.etag, p.modified, p.vary = replyAges.Draw(t, "age"), replyTags.Draw(t, "etag"), replyModified.Draw(t, "modified"), replyVary.Draw(t, "vary")
	if a.rng != "" {
		p.ranges = rapid.SampledFrom([]int{honest, honest, honest, never, always}).Draw(t, "ranges")
	}
	p.body = make([]byte, replySizes.Draw(t, "size"))
	if a.method == "POST" && seldom(t, 2, "for GET") {
		p.contentLocation, p.body = a.target, nil
	}
	return p
}

func drawAsk(t *rapid.T) *ask {
	a := &ask{method: askMethods.Draw(t, "method"), target: targets.Draw(t, "target"), fields: map[string]string{}}
	if v := askLanguages.Draw(t, "Accept-Language"); v != "" {
		a.fields["Accept-Language"] = v
	}
	switch rapid.IntRange(0, 15).Draw(t, "field") {
	case 11, 12, 13:
		a.fields["X-Tenant"] = "1"
	case 14:
		a.fields["Authorization"] = "Bearer canary-1234"
	case 15:
		a.fields["Cookie"] = "id=1"
	}
	switch rapid.IntRange(0, 11).Draw(t, "control") {
	case 8, 9, 10:
		a.control = wishes.Draw(t, "Cache-Control")
	case 11:
		a.pragma = true
	}
	a.noneMatch, a.modifiedSince, a.rng = askTags.Draw(t, "If-None-Match"), askSince.Draw(t, "If-Modified-Since"), askRanges.Draw(t, "Range")
	if a.rng != "" {
		a.ifRange = askIfRanges.Draw(t, "If-Range")
	}
	if seldom(t, 40, "match") {
		a.match = `"1"`
	}
	return a
}

// focus is what most requests of a check are about: of what is drawn at random
// hardly two in a row are about one response.
type focus int

const (
	everything focus = iota
	validation       // of what is stored
	pieces           // it is stored in part
)

var (
	versionVary = rapid.SampledFrom([]string{"", "", "Accept-Language"})
	versionTags = rapid.SampledFrom([]string{"", `"1"`, `"1"`, `W/"1"`, `"2"`})
	runAsks     = rapid.SampledFrom([]string{"", "bytes=0-9", "bytes=10-19", "bytes=20-29", "bytes=5-", "bytes=-3", "bytes=0-4,5-9", "bytes=0-1,5-6"})
)

func (f focus) narrowAsk(t *rapid.T, a *ask) {
	if f == everything || seldom(t, 4, "elsewhere") {
		return
	}
	a.target, a.match = "/a", ""
	if a.method != "HEAD" {
		a.method = "GET"
	}
	if f == pieces {
		a.fields, a.noneMatch, a.modifiedSince, a.rng = nil, "", "", runAsks.Draw(t, "run")
		if a.rng == "" || a.ifRange != `"1"` {
			a.ifRange = ""
		}
	}
}

func (f focus) narrowReply(t *rapid.T, p *reply) {
	if f == everything || seldom(t, 4, "otherwise") {
		return
	}
	p.status, p.cookie, p.vary, p.etag = 200, false, versionVary.Draw(t, "version's Vary"), versionTags.Draw(t, "version")
	if p.date == "today" {
		p.date = ""
	}
	if f == validation && seldom(t, 6, "trouble") {
		p.status, p.conditions = http.StatusServiceUnavailable, never
	}
	if f == pieces {
		p.vary, p.etag, p.framing, p.body, p.conditions = "", `"1"`, 0, make([]byte, 30), honest
		if p.ranges == always {
			p.ranges = honest
		}
	}
}

// request writes the ask out.
func (a *ask) request() *http.Request {
	r := httptest.NewRequest(a.method, "/s"+a.target, nil)
	for name, value := range a.fields {
		r.Header.Set(name, value)
	}
	for _, d := range a.control {
		r.Header.Add("Cache-Control", d.text)
	}
	if a.pragma {
		r.Header.Set("Pragma", "no-cache")
	}
	for name, value := range map[string]string{
		"If-None-Match": a.noneMatch, "If-Modified-Since": a.modifiedSince, "If-Match": a.match, "Range": a.rng, "If-Range": a.ifRange,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// answer is what the upstream does with a request: nil if it cannot be reached.
func (p *reply) answer(s sent, now time.Time) *response {
	if p.down {
		return nil
	}
	r := &response{head: p.head, status: p.status, body: p.body, cut: p.cut && len(p.body) > 1, framed: p.framing != 2, sized: p.framing == 0, total: -1}
	reads := s.method == "GET" || s.method == "HEAD"
	if reads && (p.conditions == always || p.conditions == honest && p.status == 200 && p.has(s)) {
		r.status, r.body, r.cut = http.StatusNotModified, nil, false
	}
	if s.method == "HEAD" || r.status == http.StatusNoContent {
		r.body, r.cut, r.framed, r.sized = nil, false, true, true
	}
	if s.method != "HEAD" || r.status != 200 {
		r.length = -1
	}
	if s.method == "GET" && r.status == 200 && s.rng != "" && p.ranges != never && (s.ifRange == "" || strong(s.ifRange) && s.ifRange == p.etag) {
		r.part(s.rng, p.ranges == always)
	}
	return r
}

// has judges the conditions of a request.
func (p *reply) has(s sent) bool {
	if s.noneMatch != "" {
		return noneMatch(s.noneMatch, p.tag())
	}
	since, err := http.ParseTime(s.modifiedSince)
	modified, ok := p.lastModified()
	return err == nil && ok && !modified.After(since)
}

// part makes a 206 of it. A vague one does not say how long the whole is.
func (r *response) part(rng string, vague bool) {
	spans, ok := ranges(rng, len(r.body))
	if !ok || len(spans) != 1 {
		return
	}
	s := spans[0]
	r.status, r.total, r.body = http.StatusPartialContent, len(r.body), r.body[s.first:s.end]
	r.contentRange = &s
	r.cut = r.cut && len(r.body) > 1
	if vague {
		r.total = -1
	}
}

// message writes the response out.
func (r *response) message(req *http.Request, style int) *http.Response {
	h := http.Header{}
	var lines []string
	for _, d := range r.control {
		lines = append(lines, d.text)
	}
	switch {
	case lines == nil:
	case style == 0:
		h.Set("Cache-Control", strings.Join(lines, ", "))
	case style == 1:
		h["Cache-Control"] = lines
	default:
		slices.Reverse(lines)
		h.Set("Cache-Control", ",y="+strconv.Quote("no-store, private")+" ,"+strings.Join(lines, "\t,"))
	}
	if r.targeted != nil {
		h.Set("CDN-Cache-Control", r.targeted.text)
	}
	if r.expires != nil {
		h["Expires"] = r.expires
	}
	if r.cookie {
		h.Set("Set-Cookie", "id=2")
	}
	for name, value := range map[string]string{
		"Date": r.date, "Age": r.age, "Etag": r.etag, "Last-Modified": r.modified, "Vary": r.vary,
		"Location": r.location, "Content-Location": r.contentLocation,
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if r.length >= 0 {
		h.Set("Content-Length", strconv.Itoa(r.length))
	}
	if s := r.contentRange; s != nil {
		total := "*"
		if r.total >= 0 {
			total = strconv.Itoa(r.total)
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", s.first, s.end-1, total))
	}
	resp := &http.Response{
		StatusCode: r.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, Request: req,
		ContentLength: int64(len(r.body)), Body: io.NopCloser(bytes.NewReader(r.body)),
	}
	switch {
	case len(r.body) == 0 && r.sized:
		resp.Body = http.NoBody
	case !r.framed:
		resp.ContentLength, resp.Close = -1, true
	case !r.sized:
		resp.ContentLength, resp.TransferEncoding = -1, []string{"chunked"}
	}
	if r.cut {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(r.body[:len(r.body)/2]), broken{}))
	}
	return resp
}

// broken is a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// String is for the log of a divergence.
func (a *ask) String() string {
	s := fmt.Sprint(a.method, " ", a.target, " ", a.fields, " cc=")
	for _, d := range a.control {
		s += d.text + ","
	}
	return s + fmt.Sprintf(" pragma=%v inm=%s ims=%s im=%s rng=%s ifr=%s", a.pragma, a.noneMatch, a.modifiedSince, a.match, a.rng, a.ifRange)
}

// String is for the log of a divergence.
func (p *reply) String() string {
	s := fmt.Sprintf("%d down=%v cond=%d ranges=%d framing=%d cut=%v n=%d cc=", p.status, p.down, p.conditions, p.ranges, p.framing, p.cut, len(p.body))
	for _, d := range p.control {
		s += d.text + ","
	}
	if p.targeted != nil {
		s += " cdn=" + p.targeted.text
	}
	return s + fmt.Sprintf(" exp=%q date=%s age=%q etag=%s lm=%s vary=%s loc=%s cl=%s cookie=%v length=%d", p.expires, p.date, p.age, p.etag, p.modified, p.vary, p.location, p.contentLocation, p.cookie, p.length)
}

// machine runs the gateway and the model side by side.
type machine struct {
	model
	gw    *gateway.Gateway
	cache *gateway.Cache
	next  *reply
	style int
	focus focus
	asked []sent
	n     int
	seen  map[string]int
}

var errDown = errors.New("down")

// RoundTrip is the upstream.
func (m *machine) RoundTrip(r *http.Request) (*http.Response, error) {
	s := sent{
		method: r.Method, match: r.Header.Get("If-Match"), noneMatch: r.Header.Get("If-None-Match"), modifiedSince: r.Header.Get("If-Modified-Since"),
		rng: r.Header.Get("Range"), ifRange: r.Header.Get("If-Range"),
	}
	for _, line := range r.Header["Cache-Control"] {
		s.control += line + ","
	}
	m.asked = append(m.asked, s)
	answer := m.next.answer(s, time.Now())
	if answer == nil {
		return nil, errDown
	}
	return answer.message(r, m.style), nil
}

func (m *machine) request(t *rapid.T, a *ask) {
	m.n++
	m.focus.narrowAsk(t, a)
	p := drawReply(t, a, time.Now())
	m.focus.narrowReply(t, p)
	for i, mark := 0, fmt.Sprintf("%d.", m.n); i < len(p.body); i++ { // no two are alike
		p.body[i] = mark[i%len(mark)]
	}
	m.next, m.asked, m.style = p, nil, rapid.IntRange(0, 2).Draw(t, "style")
	want := m.step(a, p, time.Now())
	rec, aborted := m.serve(a)
	synctest.Wait() // a long body is stored by a task, and what is stale refreshed

	t.Logf("%v\n%v\nwant %+v\ngot %d %v, asked %+v", a, p, want, rec.Code, rec.Header()["Cache-Status"], m.asked) // written only of a divergence
	m.count(want)
	said := ourStatus(t, rec.Header())
	got := words{said.hit, said.fwd, said.fwdStatus, said.stored, int(said.ttl), said.detail}
	require.Equal(t, want.words, got)
	require.Equal(t, append(want.sent, want.behind...), m.asked)
	require.Equal(t, want.status, rec.Code)
	require.Equal(t, want.aborted, aborted)
	if want.fault {
		return
	}
	require.Equal(t, want.age, rec.Header().Get("Age"))
	if aborted {
		require.True(t, bytes.HasPrefix(want.body, rec.Body.Bytes()), "another response's body")
		return
	}
	body := rec.Body.Bytes()
	if len(want.spans) > 1 {
		body = parts(t, rec, want.spans)
	} else if len(want.spans) == 1 && rec.Code == http.StatusPartialContent {
		require.True(t, strings.HasPrefix(rec.Header().Get("Content-Range"), fmt.Sprintf("bytes %d-%d/", want.spans[0].first, want.spans[0].end-1)))
	}
	require.Len(t, body, len(want.body))
	require.True(t, bytes.Equal(want.body, body), "another response's body")
	if got.hit {
		require.Equal(t, rec.Code == http.StatusRequestedRangeNotSatisfiable, rec.Header()["Content-Range"] != nil && len(want.spans) == 0)
		require.NotEmpty(t, rec.Header().Get("Date"))
		require.Empty(t, rec.Header()["Set-Cookie"])
		require.Empty(t, rec.Header()["X-Request-Id"], "another request's")
	}
}

func (m *machine) serve(a *ask) (rec *httptest.ResponseRecorder, aborted bool) {
	rec = httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	m.gw.ServeHTTP(rec, a.request())
	return rec, false
}

// parts returns the content of a multipart/byteranges, part after part (RFC 9110
// §14.6).
func parts(t *rapid.T, rec *httptest.ResponseRecorder, spans []span) (body []byte) {
	_, params, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
	require.NoError(t, err)
	reader := multipart.NewReader(rec.Body, params["boundary"])
	for _, s := range spans {
		part, err := reader.NextPart()
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(part.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/", s.first, s.end-1)))
		content, err := io.ReadAll(part)
		require.NoError(t, err)
		body = append(body, content...)
	}
	_, err = reader.NextPart()
	require.ErrorIs(t, err, io.EOF)
	return body
}

// bubble keeps rapid from what a synctest bubble does not allow.
type bubble struct{ *testing.T }

// rounds of rapid's checks in each of two bubbles, of some 40 requests each. The
// checks are 100, or as many as -rapid.checks says: 10^5 requests in all, and a
// million in a minute or two with
//
//	go test -run Model -rapid.checks=1000
const rounds = 13

// The cache does, request by request, what a plain reference of the standards
// does: it asks the same of the upstream, sends the same status, body, Age and
// Cache-Status, and stores the same.
func TestCacheFollowsItsModel(t *testing.T) {
	t.Parallel()
	var steps atomic.Int64
	seen := make([]map[string]int, 2)
	t.Run("bubbles", func(t *testing.T) {
		for i := range seen {
			seen[i] = map[string]int{}
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for range rounds {
						rapid.Check(bubble{t}, func(rt *rapid.T) { checkModel(rt, seen[i], &steps) })
					}
				})
			})
		}
	})
	if t.Failed() {
		return
	}
	assert.GreaterOrEqual(t, steps.Load(), int64(100_000))
	for name, n := range seen[1] {
		seen[0][name] += n
	}
	for _, name := range often {
		assert.Positive(t, seen[0][name], name) // a few dozen at least
	}
	t.Log(steps.Load(), "requests,", len(seen[0]), "outcomes")
}

// often are outcomes, of several hundreds, without which the test would be of
// little worth.
var often = []string{
	"hit 200", "hit 304", "hit 206", "hit 416", "hit 404", "hit stale", "hit behind",
	"uri-miss 0 stored", "vary-miss 0 stored", "vary-miss 304 stored", "stale 0 stored", "stale 304 stored", "request 304 stored",
	"stale 304 no-store", "stale 304 private", "stale 304 authorization", "partial 0 stored", "partial 206 stored",
	"method 0 stored", "method 0 method", "stale 0 stale-if-error", "stale 503 stale-if-error", "request 0 conditional", "request 0 no-store",
	"uri-miss 0 no-freshness", "uri-miss 0 stale", "uri-miss 0 range", "uri-miss 0 vary", "uri-miss 0 unframed", "uri-miss 0 set-cookie",
	"uri-miss 0 cookie", "uri-miss 0 status", "uri-miss 0 no-cache", "uri-miss 200 no-store", "stale asked again",
}

// count notes what has occurred.
func (m *machine) count(o *outcome) {
	switch {
	case !o.hit && o.stored:
		m.seen[fmt.Sprintf("%s %d stored", o.fwd, o.fwdStatus)]++
	case !o.hit:
		m.seen[fmt.Sprintf("%s %d %s", o.fwd, o.fwdStatus, o.detail)]++
	case o.behind != nil:
		m.seen["hit behind"]++
	case o.ttl < 0:
		m.seen["hit stale"]++
	}
	if o.hit {
		m.seen[fmt.Sprintf("hit %d", o.status)]++
	}
	if len(o.sent) > 1 {
		m.seen[o.fwd+" asked again"]++
	}
}

func checkModel(rt *rapid.T, seen map[string]int, steps *atomic.Int64) {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // each check alike
	m := &machine{model: model{stored: map[string][]*kept{}, refused: map[string]time.Time{}}, seen: seen}
	m.focus = rapid.SampledFrom([]focus{everything, validation, pieces}).Draw(rt, "focus")
	var err error
	m.cache, err = gateway.NewCache()
	require.NoError(rt, err)
	m.gw, err = gateway.New(gateway.WithCache(m.cache), gateway.WithTransport(m), gateway.WithoutRetries(), gateway.WithoutBreaker(), gateway.WithoutEjection(),
		gateway.WithService("s", "http://upstream.invalid", gateway.WithMethods("BREW")))
	require.NoError(rt, err)
	defer func() { _, _ = shutdown(m.gw), shutdown(m.cache) }()
	rt.Repeat(map[string]func(*rapid.T){
		"requests": func(rt *rapid.T) {
			for range 4 {
				m.request(rt, drawAsk(rt))
				steps.Add(1)
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
}
