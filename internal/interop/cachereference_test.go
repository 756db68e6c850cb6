package interop_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This is a shared cache as RFC 9111 tells it, with RFC 5861, RFC 9213 and what
// RFC 9110 says about conditions and ranges: slow, one request at a time, and
// nothing of it shared with the package. Where the standards leave a choice, a
// function of its own says what ours is.

// control is what the directives of a message say. Of those with an argument it
// has each value.
type control struct {
	maxAge, sMaxAge, whileRevalidate, ifError   []int
	minFresh, maxStale                          []int
	noStore, noCache, private, onlyIfCached     bool
	mustRevalidate, proxyRevalidate             bool
	public, immutable, mustUnderstand, targeted bool
	vague                                       bool // a lifetime of the wrong type in a targeted field
}

// directive is a member of a field, and what it means.
type directive struct {
	text string
	says func(*control)
}

const (
	maxDelta = 1 << 31 // RFC 9111 §1.2.2: and beyond
)

// unreadable is a lifetime that is no number: caches are encouraged to take the
// response as stale (RFC 9111 §4.2.1).
func unreadable() int { return 0 }

// several is a lifetime that is given more than once: the first, or stale (RFC
// 9111 §4.2.1). Ours is stale, unless all say the same.
func several(values []int) int {
	for _, v := range values {
		if v != values[0] {
			return 0
		}
	}
	return values[0]
}

// least is a window of time that is given more than once, of which nothing is
// said.
func least(values []int) int { return slices.Min(values) }

// ignored is a member that nothing is said of, and a permission in a form that
// the standard does not have: an argument (RFC 9111 §5.2.3).
func ignored(*control) {}

var responseDirectives = []directive{
	{"max-age=60", func(c *control) { c.maxAge = append(c.maxAge, 60) }},
	{"max-age=10", func(c *control) { c.maxAge = append(c.maxAge, 10) }},
	{"max-age=3", func(c *control) { c.maxAge = append(c.maxAge, 3) }},
	{"max-age=0", func(c *control) { c.maxAge = append(c.maxAge, 0) }},
	{"s-maxage=10", func(c *control) { c.sMaxAge = append(c.sMaxAge, 10) }},
	{"s-maxage=3", func(c *control) { c.sMaxAge = append(c.sMaxAge, 3) }},
	{"public", func(c *control) { c.public = true }},
	{"private", func(c *control) { c.private = true }},
	{"no-store", func(c *control) { c.noStore = true }},
	{"no-cache", func(c *control) { c.noCache = true }},
	{"must-revalidate", func(c *control) { c.mustRevalidate = true }},
	{"proxy-revalidate", func(c *control) { c.proxyRevalidate = true }},
	{"immutable", func(c *control) { c.immutable = true }},
	{"must-understand", func(c *control) { c.mustUnderstand = true }},
	{"no-transform", ignored},
	{"stale-while-revalidate=5", func(c *control) { c.whileRevalidate = append(c.whileRevalidate, 5) }},
	{"stale-while-revalidate=60", func(c *control) { c.whileRevalidate = append(c.whileRevalidate, 60) }},
	{"stale-if-error=5", func(c *control) { c.ifError = append(c.ifError, 5) }},
	{"stale-if-error=60", func(c *control) { c.ifError = append(c.ifError, 60) }},
	{"stale-if-error=0", func(c *control) { c.ifError = append(c.ifError, 0) }},
}

// oddDirectives are forms of them that are rare, doubtful or wrong.
var oddDirectives = []directive{
	{"MAX-AGE=10", func(c *control) { c.maxAge = append(c.maxAge, 10) }},   // RFC 9111 §5.2: case-insensitive
	{`max-age="10"`, func(c *control) { c.maxAge = append(c.maxAge, 10) }}, // both forms (RFC 9111 §5.2)
	{"max-age=99999999999", func(c *control) { c.maxAge = append(c.maxAge, maxDelta) }},
	{"max-age", func(c *control) { c.maxAge = append(c.maxAge, unreadable()) }},
	{"max-age=x", func(c *control) { c.maxAge = append(c.maxAge, unreadable()) }},
	{"max-age=-1", func(c *control) { c.maxAge = append(c.maxAge, unreadable()) }},
	{"max-age = 60", func(c *control) { c.maxAge = append(c.maxAge, unreadable()) }},
	{"s-maxage=1.5", func(c *control) { c.sMaxAge = append(c.sMaxAge, unreadable()) }},
	{"s-maxage=60;", func(c *control) { c.sMaxAge = append(c.sMaxAge, unreadable()) }},
	{`private="set-cookie"`, func(c *control) { c.private = true }},     // as the unqualified form (RFC 9111 §5.2.2.7)
	{`no-cache="set-cookie, x"`, func(c *control) { c.noCache = true }}, // likewise (§5.2.2.4)
	{"no-store=1", func(c *control) { c.noStore = true }},
	{"no store", func(c *control) { c.noStore = true }},
	{"must-revalidate;", func(c *control) { c.mustRevalidate = true }},
	{"public=1", ignored},
	{"immutable=1", ignored},
	{"must-understand=1", ignored},
	{`x="no-store, private"`, ignored},
	{"", ignored}, // RFC 9110 §5.6.1.2
	{"stale-while-revalidate=x", func(c *control) { c.whileRevalidate = append(c.whileRevalidate, unreadable()) }},
}

// targetedFields are whole values of CDN-Cache-Control (RFC 9213 §2.1). One
// without says is broken or empty, and is ignored (§2.2).
var targetedFields = []directive{
	{"max-age=60", func(c *control) { c.maxAge = []int{60} }},
	{"max-age=3, stale-while-revalidate=20", func(c *control) { c.maxAge, c.whileRevalidate = []int{3}, []int{20} }},
	{"max-age=3;x=1, must-revalidate", func(c *control) { c.maxAge, c.mustRevalidate = []int{3}, true }},
	{"public, max-age=10", func(c *control) { c.maxAge, c.public = []int{10}, true }},
	{"max-age=3, max-age=10", func(c *control) { c.maxAge = []int{10} }}, // RFC 9651 §3.2: the last
	{"max-age=-5", func(c *control) { c.maxAge = []int{0} }},
	{"s-maxage=10", func(c *control) { c.sMaxAge = []int{10} }},
	{`max-age="60"`, func(c *control) { c.vague = true }},
	{"max-age=60.5", func(c *control) { c.vague = true }},
	{"no-store", func(c *control) { c.noStore = true }},
	{"no-store=?0, max-age=10", func(c *control) { c.maxAge = []int{10} }},
	{"no-cache=1", func(c *control) { c.noCache = true }}, // what restricts does so whatever its value
	{"private", func(c *control) { c.private = true }},
	{"x", ignored},
	{"", nil},
	{"max-age=60,", nil},
	{"Max-Age=60", nil},
}

var requestDirectives = []directive{
	{"no-cache", func(c *control) { c.noCache = true }},
	{"no-store", func(c *control) { c.noStore = true }},
	{"only-if-cached", func(c *control) { c.onlyIfCached = true }},
	{"max-age=0", func(c *control) { c.maxAge = append(c.maxAge, 0) }},
	{"max-age=5", func(c *control) { c.maxAge = append(c.maxAge, 5) }},
	{"max-age=60", func(c *control) { c.maxAge = append(c.maxAge, 60) }},
	{"min-fresh=5", func(c *control) { c.minFresh = append(c.minFresh, 5) }},
	{"max-stale", func(c *control) { c.maxStale = append(c.maxStale, maxDelta) }}, // RFC 9111 §5.2.1.2
	{"max-stale=5", func(c *control) { c.maxStale = append(c.maxStale, 5) }},
	{"stale-if-error=20", func(c *control) { c.ifError = append(c.ifError, 20) }},
	{"max-age=x", func(c *control) { c.maxAge = append(c.maxAge, unreadable()) }},
	{"min-fresh", func(c *control) { c.minFresh = append(c.minFresh, maxDelta) }},
	{"max-stale=x", func(c *control) { c.maxStale = append(c.maxStale, unreadable()) }},
	{"No-Cache=1", func(c *control) { c.noCache = true }},
	{"x=only-if-cached", ignored},
}

func sayAll(list []directive) *control {
	c := new(control)
	for _, d := range list {
		d.says(c)
	}
	return c
}

// head is the header of a response. A field that is nil or "" is absent.
type head struct {
	control                   []directive
	targeted                  *directive
	expires                   []string
	date, age                 string
	etag, modified            string
	vary                      string
	location, contentLocation string
	cookie                    bool
	length                    int // Content-Length that a response to HEAD states; -1: none
}

// says is what it says to this cache: the targeted field in the place of the
// others (RFC 9213 §2.2).
func (h *head) says() *control {
	if h.targeted != nil && h.targeted.says != nil {
		c := &control{targeted: true}
		h.targeted.says(c)
		return c
	}
	return sayAll(h.control)
}

// updated is RFC 9111 §3.2: with each field of the newer one in the place of
// its own. Date and Age are the newer one's, cookies are nobody's.
func (h head) updated(newer *head) head {
	if newer.control != nil {
		h.control = newer.control
	}
	if newer.targeted != nil {
		h.targeted = newer.targeted
	}
	if newer.expires != nil {
		h.expires = newer.expires
	}
	for _, f := range []struct {
		old *string
		now string
	}{{&h.etag, newer.etag}, {&h.modified, newer.modified}, {&h.vary, newer.vary}, {&h.location, newer.location}, {&h.contentLocation, newer.contentLocation}} {
		if f.now != "" {
			*f.old = f.now
		}
	}
	h.date, h.age = newer.date, newer.age
	return h
}

// tag is the entity tag, unless it breaks the grammar (RFC 9110 §8.8.3).
func (h *head) tag() string {
	if t := strings.TrimPrefix(h.etag, "W/"); len(t) > 1 && t[0] == '"' && strings.Index(t[1:], `"`) == len(t)-2 {
		return h.etag
	}
	return ""
}

func weakly(tag string) string { return strings.TrimPrefix(tag, "W/") }

func strong(tag string) bool { return strings.HasPrefix(tag, `"`) }

// strongest is what a part combines by, and what is sent in If-Range: a strong
// tag or, without any, a Last-Modified of long before Date (RFC 9110 §8.8.2.2).
func (e *kept) strongest() string {
	modified, dated := e.lastModified()
	switch {
	case strong(e.tag()):
		return e.tag()
	case e.tag() == "" && dated && e.recent().Sub(modified) >= time.Minute:
		return modified.UTC().Format(http.TimeFormat)
	}
	return ""
}

func (h *head) lastModified() (time.Time, bool) {
	t, err := http.ParseTime(h.modified)
	return t, err == nil
}

func (h *head) validator() bool {
	_, dated := h.lastModified()
	return dated || h.tag() != ""
}

// generated is Date, or else when the response came (RFC 9110 §6.6.1).
func (h *head) generated(came time.Time) time.Time {
	if t, err := http.ParseTime(h.date); err == nil {
		return t
	}
	return came
}

// lifetime is RFC 9111 §4.2.1.
func (h *head) lifetime(status int, came time.Time) (d time.Duration, explicit bool) {
	c := h.says()
	switch {
	case len(c.sMaxAge) > 0:
		return time.Duration(several(c.sMaxAge)) * time.Second, true
	case len(c.maxAge) > 0:
		return time.Duration(several(c.maxAge)) * time.Second, true
	case len(h.expires) > 0 && !c.targeted:
		t, err := http.ParseTime(h.expires[0])
		if err != nil || h.expires[len(h.expires)-1] != h.expires[0] { // §5.3, §4.2.1
			return 0, true
		}
		return max(0, t.Sub(h.generated(came))), true
	case c.vague, !understoodToLast(status) && !c.public: // §4.2.2
		return 0, false
	}
	return h.guessed(came), false
}

// guessed is how long a response lasts that does not say: a tenth of its age
// since Last-Modified, at most a day, in whole seconds (RFC 9111 §4.2.2).
func (h *head) guessed(came time.Time) time.Duration {
	t, ok := h.lastModified()
	if !ok {
		return 0
	}
	return min(max(0, h.generated(came).Sub(t))/10, 24*time.Hour).Truncate(time.Second)
}

// understoodToLast are the statuses that may be guessed at (RFC 9110 §15.1).
func understoodToLast(status int) bool {
	return slices.Contains([]int{200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}, status)
}

// initialAge is RFC 9111 §4.2.3, over a network that takes no time.
func (h *head) initialAge(came time.Time) time.Duration {
	apparent := came.Truncate(time.Second).Sub(h.generated(came))
	return max(0, apparent, h.statedAge())
}

// statedAge is what Age says (RFC 9111 §5.1).
func (h *head) statedAge() time.Duration {
	first, _, _ := strings.Cut(h.age, ",")
	age, err := strconv.ParseUint(strings.TrimSpace(first), 10, 31)
	if err != nil {
		age = 0
	}
	return time.Duration(age) * time.Second
}

// names are those of Vary; nil, false: no request can be matched (RFC 9111
// §4.1), or only by fields that the gateway sets.
func (h *head) names() (names []string, ok bool) {
	for name := range strings.SplitSeq(h.vary, ",") {
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		switch name {
		case "":
			continue
		case "*", "Foo:", "Via":
			return nil, false
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// kept is a stored response.
type kept struct {
	head
	vary   []string
	values []string // of the request, for vary
	status int
	body   []byte
	have   []bool // which bytes of body; nil: all
	came   time.Time
	first  time.Duration // its age then
	lasts  time.Duration
}

func newKept(a *ask, h *head, status int, body []byte, now time.Time) *kept {
	e := &kept{head: *h, status: status, body: body, came: now, first: h.initialAge(now)}
	e.lasts, _ = h.lifetime(status, now)
	e.vary, _ = h.names()
	e.values = a.values(e.vary)
	return e
}

func (e *kept) age(now time.Time) time.Duration { return e.first + now.Sub(e.came) }

// fresh is RFC 9111 §4.2, and §5.2.2.4.
func (e *kept) fresh(now time.Time) bool { return !e.says().noCache && e.lasts > e.age(now) }

func (e *kept) staleness(now time.Time) time.Duration { return e.age(now) - e.lasts }

// neverStale is RFC 9111 §4.2.4.
func (e *kept) neverStale() bool {
	c := e.says()
	return c.noCache || c.mustRevalidate || c.proxyRevalidate || len(c.sMaxAge) > 0
}

// single: by what it says itself it is stale as it comes, or to be validated before
// each use, so that it answers nobody who has waited for it (RFC 9111 §4).
func (e *kept) single() bool {
	if stale := e.statedAge() - e.lasts; e.says().noCache || stale >= 0 {
		return e.neverStale() || !inWindow(stale, e.says().whileRevalidate)
	}
	return false
}

func (e *kept) matches(a *ask) bool { return slices.Equal(a.values(e.vary), e.values) }

// recent orders stored responses by Date.
func (e *kept) recent() time.Time { return e.generated(e.came).Truncate(time.Second) }

// values are what a request says in these fields, brought into one form (RFC
// 9111 §4.1).
func (a *ask) values(names []string) (values []string) {
	for _, name := range names {
		value, ok := a.fields[name]
		if name == "Accept-Language" {
			value = ranked(value)
		}
		values = append(values, fmt.Sprint(ok, value))
	}
	return values
}

// ranked is a field with weights in the one form that all writings of it share.
func ranked(value string) string {
	type member struct {
		name   string
		weight float64
	}
	var all []member
	for m := range strings.SplitSeq(value, ",") {
		name, weight, ok := strings.Cut(strings.ToLower(strings.TrimSpace(m)), ";q=")
		q := 1.0
		if ok {
			q, _ = strconv.ParseFloat(weight, 64)
		}
		all = append(all, member{name, q})
	}
	slices.SortStableFunc(all, func(a, b member) int { return int(1000*b.weight) - int(1000*a.weight) })
	return fmt.Sprint(all)
}

// span is the bytes from first to before end.
type span struct{ first, end int }

// ranges reads Range (RFC 9110 §14.1.2). No span: none can be satisfied. What is
// not understood is ignored: ok is false.
func ranges(text string, size int) (spans []span, ok bool) {
	set, ok := strings.CutPrefix(text, "bytes=")
	if !ok || size == 0 {
		return nil, false
	}
	for member := range strings.SplitSeq(set, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(member), "-")
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		switch {
		case !ok || from == "" && err2 != nil || from != "" && err1 != nil || to != "" && err2 != nil || from != "" && to != "" && last < first:
			return nil, false
		case from == "":
			first, last = max(0, size-last), size-1
		case to == "":
			last = size - 1
		}
		if first < size {
			spans = append(spans, span{first, min(last, size-1) + 1})
		}
	}
	return joined(spans), true
}

// joined has what overlaps or touches be one (RFC 9110 §15.3.7.2), in the order
// that was asked for.
func joined(spans []span) (out []span) {
	for _, s := range spans {
		if n := len(out); n > 0 && s.first <= out[n-1].end && out[n-1].first <= s.end {
			out[n-1] = span{min(s.first, out[n-1].first), max(s.end, out[n-1].end)}
			continue
		}
		out = append(out, s)
	}
	return out
}

// sent is a request as the upstream sees it.
type sent struct {
	method, control, match, noneMatch, modifiedSince, rng, ifRange string
}

func (s *sent) conditional() bool { return s.match != "" || s.noneMatch != "" || s.modifiedSince != "" }

// own is the request with the client's own conditions: who shares the answer with
// nobody, and has nothing to compare it with, leaves them to the upstream.
func (a *ask) own() sent {
	return sent{method: a.method, match: a.match, noneMatch: a.noneMatch, modifiedSince: a.modifiedSince, rng: a.rng, ifRange: a.ifRange}
}

// words are the reference's Cache-Status (RFC 9211 §2).
type words struct {
	hit       bool
	fwd       string
	fwdStatus int
	stored    bool
	ttl       int
	detail    string
}

// outcome is what a step must come to.
type outcome struct {
	words
	sent    []sent // by the client's request
	behind  []sent // after it (RFC 5861 §3)
	status  int
	body    []byte
	spans   []span // the body is of these: 206
	age     string
	aborted bool // the body breaks off
	fault   bool // it is the gateway's own answer
}

// model is the cache.
type model struct {
	stored  map[string][]*kept   // by target, the youngest last
	refused map[string]time.Time // until when nobody waits for another's answer
}

// turn is one request on its way through the model.
type turn struct {
	*model
	a   *ask
	c   *control
	p   *reply
	now time.Time
	e   *kept // what the request selects
	o   *outcome
	// alone says that the fetch is nobody else's, spent that a 304 was of no use.
	alone, spent bool
}

func (m *model) step(a *ask, p *reply, now time.Time) *outcome {
	t := &turn{model: m, a: a, c: sayAll(a.control), p: p, now: now, o: new(outcome)}
	t.c.noCache = t.c.noCache || a.pragma && len(a.control) == 0 // RFC 9111 §5.4
	switch {
	case a.method != "GET" && a.method != "HEAD":
		t.passBy("method", "method")
	case t.c.noStore: // RFC 9111 §5.2.1.5
		t.passBy("request", "no-store")
	case a.match != "": // RFC 9111 §4.3.2
		t.passBy("request", "conditional")
	case t.look():
		t.hit()
	case t.c.onlyIfCached: // RFC 9111 §5.2.1.7
		t.notSent()
	case a.method == "HEAD":
		t.o.detail = "method"
		t.passHead()
	case a.rng != "" && (t.e == nil || t.e.have != nil):
		t.fetchPart()
	default:
		t.alone = now.Before(m.refused[a.target])
		t.ask()
	}
	return t.o
}

// look is RFC 9111 §4.
func (t *turn) look() bool {
	all := t.stored[t.a.target]
	t.o.fwd = "uri-miss"
	if len(all) > 0 {
		t.o.fwd = "vary-miss"
	}
	if t.e = chosen(all, t.a); t.e == nil {
		return false
	}
	if t.e.have != nil && !t.covered() {
		t.o.fwd = "partial"
		return false
	}
	if t.usable() {
		return true
	}
	t.o.fwd = "stale"
	if t.e.fresh(t.now) {
		t.o.fwd = "request"
	}
	return false
}

// chosen is RFC 9111 §4.1: of those that match one that names what selects it,
// the most recent by Date.
func chosen(all []*kept, a *ask) (best *kept) {
	for _, e := range slices.Backward(all) {
		if !e.matches(a) {
			continue
		}
		varies := len(e.vary) > 0
		switch {
		case best == nil, varies && len(best.vary) == 0, varies == (len(best.vary) > 0) && e.recent().After(best.recent()):
			best = e
		}
	}
	return best
}

// covered: RFC 9111 §3.3.
func (t *turn) covered() bool {
	spans, ok := t.spans(t.e)
	for _, s := range spans {
		if slices.Contains(t.e.have[s.first:s.end], false) {
			return false
		}
	}
	return ok && len(spans) > 0
}

// spans are those that the request asks for of e (RFC 9110 §14.2, §13.1.5).
func (t *turn) spans(e *kept) ([]span, bool) {
	if t.a.rng == "" || t.a.method != "GET" || e.status != 200 && e.status != 206 || !e.allowsRange(t.a.ifRange) {
		return nil, false
	}
	return ranges(t.a.rng, len(e.body))
}

func (e *kept) allowsRange(ifRange string) bool {
	if ifRange == "" || strings.Contains(ifRange, `"`) {
		return ifRange == "" || strong(ifRange) && ifRange == e.tag()
	}
	since, err := http.ParseTime(ifRange)
	modified, ok := e.lastModified()
	return err == nil && ok && modified.Equal(since) && e.recent().Sub(modified) >= time.Minute // RFC 9110 §8.8.2.2
}

// usable is the last condition of RFC 9111 §4: fresh, or to be served stale.
func (t *turn) usable() bool {
	e, c := t.e, t.c
	switch {
	case c.noCache || e.says().noCache:
		return false
	case e.fresh(t.now):
		return t.takesFresh()
	case e.neverStale() || !t.takesStale():
		return false
	case t.whileRevalidate():
		return true
	}
	return len(c.maxStale) > 0 // RFC 9111 §5.2.1.2
}

func (t *turn) whileRevalidate() bool { // RFC 5861 §3
	return inWindow(t.e.staleness(t.now), t.e.says().whileRevalidate)
}

func inWindow(staleness time.Duration, window []int) bool {
	return len(window) > 0 && least(window) > 0 && staleness <= time.Duration(least(window))*time.Second
}

// takesFresh is RFC 9111 §5.2.1.1 and §5.2.1.3, and RFC 8246 §2.
func (t *turn) takesFresh() bool {
	if c, age := t.c, t.e.age(t.now); len(c.maxAge) > 0 && !t.e.says().immutable {
		if limit := least(c.maxAge); age > time.Duration(limit)*time.Second || reload(limit) {
			return false
		}
	}
	return !t.tooLate()
}

// reload says that max-age=0 asks for an answer that is younger than any.
func reload(maxAge int) bool { return maxAge == 0 }

func (t *turn) tooLate() bool {
	return len(t.c.minFresh) > 0 && t.e.lasts-t.e.age(t.now) < time.Duration(slices.Max(t.c.minFresh))*time.Second
}

// takesStale is RFC 9111 §5.2.1.1, §5.2.1.2 and §5.2.1.3.
func (t *turn) takesStale() bool {
	c := t.c
	switch {
	case len(c.minFresh) > 0:
		return false
	case len(c.maxAge) > 0 && (len(c.maxStale) == 0 || t.e.age(t.now) > time.Duration(least(c.maxAge))*time.Second):
		return false
	}
	return len(c.maxStale) == 0 || t.e.staleness(t.now) <= time.Duration(least(c.maxStale))*time.Second
}

// hit answers from the store, and has what is served while it is revalidated be
// that.
func (t *turn) hit() {
	age := t.e.age(t.now).Truncate(time.Second)
	t.o.words = words{hit: true, ttl: int(math.Floor((t.e.lasts - age).Seconds()))}
	t.answer(t.e, false)
	if t.e.fresh(t.now) || !t.whileRevalidate() || t.now.Before(t.refused[t.a.target]) {
		return
	}
	b := *t.a
	b.method, b.control, b.pragma, b.noneMatch, b.modifiedSince, b.rng, b.ifRange = "GET", nil, false, "", "", "", ""
	behind := &turn{model: t.model, a: &b, c: new(control), p: t.p, now: t.now, e: t.e, o: new(outcome)}
	behind.ask()
	t.o.behind = behind.o.sent
}

// answer answers from e: its age is its own, or came just now with it.
func (t *turn) answer(e *kept, came bool) {
	o := t.o
	defer func() { t.tell(e.status) }()
	o.age = fmt.Sprint(int(e.age(t.now) / time.Second))
	if came {
		o.age = e.head.age // the response is this request's (RFC 9111 §4)
	}
	o.status, o.body = e.status, e.body
	if t.clientHas(e) {
		o.status, o.body = http.StatusNotModified, nil
	} else if spans, ok := t.spans(e); ok {
		o.spans, o.status, o.body = spans, http.StatusPartialContent, nil
		if len(spans) == 0 {
			o.status = http.StatusRequestedRangeNotSatisfiable
			return
		}
		for _, s := range spans {
			o.body = append(o.body, e.body[s.first:s.end]...)
		}
	}
	if t.a.method == "HEAD" {
		o.body = nil
	}
}

// tell says what the upstream answered where the client gets something else (RFC
// 9211 §2.3).
func (t *turn) tell(status int) {
	if t.o.stored && t.o.status != status && t.o.fwdStatus == 0 {
		t.o.fwdStatus = status
	}
}

// clientHas is RFC 9111 §4.3.2 and RFC 9110 §13.2.2.
func (t *turn) clientHas(e *kept) bool {
	if e.status != 200 && e.status != 206 {
		return false
	}
	if t.a.noneMatch != "" {
		return noneMatch(t.a.noneMatch, e.tag())
	}
	since, err := http.ParseTime(t.a.modifiedSince)
	modified, ok := e.lastModified()
	if !ok {
		modified = e.recent()
	}
	return err == nil && !modified.After(since)
}

// noneMatch reports whether If-None-Match is false (RFC 9110 §13.1.2).
func noneMatch(list, tag string) bool {
	if list == "*" {
		return true
	}
	for member := range strings.SplitSeq(list, ",") {
		if tag != "" && weakly(strings.TrimSpace(member)) == weakly(tag) {
			return true
		}
	}
	return false
}

// send asks the upstream. It returns nil where it cannot be reached, or breaks
// the rules: a 304 to a request without conditions (RFC 9110 §15.4.5).
func (t *turn) send(s sent) *response {
	for _, d := range t.a.control { // which the client says to all on the way
		s.control += d.text + ","
	}
	t.o.sent = append(t.o.sent, s)
	r := t.p.answer(s, t.now)
	if r != nil && r.status == http.StatusNotModified && !s.conditional() {
		return nil
	}
	return r
}

// fail is an answer of the gateway's own.
func (t *turn) fail(status int) { t.o.status, t.o.fault, t.o.body = status, true, nil }

// relay sends what the upstream answered, as it is.
func (t *turn) relay(r *response) {
	t.o.status, t.o.body, t.o.age = r.status, r.body, r.age
	if t.a.method == "HEAD" || r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		t.o.body = nil
	} else {
		t.o.aborted = r.cut
	}
	t.o.spans = nil
}

// named are the stored responses that a validation names (RFC 9111 §4.3.1): those
// that the request selects. Without any it is told which others there are, by
// tags that no two of them share.
func (t *turn) named() (named []*kept, s sent) {
	s.method = t.a.method
	if t.spent {
		return nil, s
	}
	var tags []string
	for _, e := range t.stored[t.a.target] {
		if e.have != nil || !e.validator() || t.e != nil && !e.matches(t.a) || t.e == nil && !strong(e.tag()) {
			continue
		}
		named = append(named, e)
		if tag := e.tag(); tag != "" && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	s.noneMatch = strings.Join(tags, ", ")
	if t.e != nil && len(named) == 1 {
		if modified, ok := named[0].lastModified(); ok {
			s.modifiedSince = modified.Format(http.TimeFormat)
		}
	}
	return named, s
}

// ask fetches an answer that is whole.
func (t *turn) ask() {
	named, s := t.named()
	plain := !t.alone || t.e != nil
	if !plain {
		named, s = nil, t.a.own()
	}
	if t.e != nil && t.e.have != nil {
		named, s = nil, sent{method: "GET"}
		if missing := t.e.missing(); len(missing) == 1 && t.e.strongest() != "" {
			s.rng, s.ifRange = fmt.Sprintf("bytes=%d-%d", missing[0].first, missing[0].end-1), t.e.strongest()
		}
	}
	r := t.send(s)
	switch {
	case r == nil:
		t.unanswered(0)
	case r.status == http.StatusNotModified && plain:
		t.notModified(r, named)
	case r.status == http.StatusPartialContent && plain && s.rng != "":
		t.completed(r)
	case r.status == http.StatusRequestedRangeNotSatisfiable && plain && s.rng != "": // the client has asked for no range
		t.spent, t.e = true, nil
		t.ask()
	case troubled(r.status) && t.standsIn(false):
		t.unanswered(r.status)
	default:
		t.judge(r, plain)
	}
}

func troubled(status int) bool { return slices.Contains([]int{500, 502, 503, 504}, status) } // RFC 5861 §4

// missing are the runs of bytes that are not stored.
func (e *kept) missing() (runs []span) {
	for i, has := range e.have {
		switch {
		case has:
		case i > 0 && !e.have[i-1]:
			runs[len(runs)-1].end = i + 1
		default:
			runs = append(runs, span{i, i + 1})
		}
	}
	return runs
}

// judge stores the answer, or sends it to this client alone.
func (t *turn) judge(r *response, plain bool) {
	if t.o.detail = t.whyNot(t.a.method, r.status, &r.head, r.framed, r.placed()); t.o.detail == "" {
		t.keep(r)
		return
	}
	t.relayAlone(r, plain)
}

// keep stores the answer and sends it, all of it.
func (t *turn) keep(r *response) {
	e := newKept(t.a, &r.head, r.status, r.body, t.now)
	t.o.stored = true
	t.shared(e)
	t.relay(r)
	if t.clientHas(e) {
		t.o.status, t.o.body, t.o.aborted = http.StatusNotModified, nil, false
		t.tell(r.status)
	}
	if !r.cut {
		t.put(e, t.e)
	}
}

// shared has nobody wait for the next answer if nobody could have had this one.
func (t *turn) shared(e *kept) {
	switch {
	case !e.single():
		delete(t.refused, t.a.target)
	case !t.alone:
		t.refuse()
	}
}

// put stores e in the place of the one that the same requests select, and of
// what it was fetched in the place of.
func (t *turn) put(e, instead *kept) {
	const maxVariants = 16
	all := slices.DeleteFunc(slices.Clone(t.stored[t.a.target]), func(old *kept) bool {
		return old == instead || slices.Equal(old.vary, e.vary) && slices.Equal(old.values, e.values)
	})
	all = append(all, e)
	t.stored[t.a.target] = all[max(0, len(all)-maxVariants):]
}

// relayAlone sends an answer that is not stored.
func (t *turn) relayAlone(r *response, plain bool) {
	if r.status < 500 {
		if !t.alone {
			t.refuse()
		}
		if t.e != nil && replaces(r.status) {
			delete(t.stored, t.a.target)
		}
	}
	t.relay(r)
	if plain && t.clientHas(newKept(t.a, &r.head, r.status, nil, t.now)) {
		t.o.fwdStatus, t.o.status, t.o.body, t.o.aborted = r.status, http.StatusNotModified, nil, false
	}
}

// refuse has nobody wait, or be refreshed behind, for ten seconds.
func (t *turn) refuse() { t.refused[t.a.target] = t.now.Add(10 * time.Second) }

// replaces says which answers tell that what is stored is no more: those that say
// what the resource is (RFC 9111 §4.3.3). A 304 says nothing of it.
func replaces(status int) bool {
	return status < 400 && status != http.StatusNotModified || status == http.StatusNotFound || status == http.StatusGone
}

// standsIn is RFC 9111 §4.2.4 and RFC 5861 §4.
func (t *turn) standsIn(unreachable bool) bool {
	const maxStale = 24 * 60 * 60
	e, c := t.e, t.c
	if e == nil || e.have != nil || c.noCache || e.says().noCache {
		return false
	}
	window := e.says().ifError
	if len(c.ifError) > 0 {
		window = c.ifError
	}
	stated := len(window) > 0 && least(window) > 0 // regardless of other freshness information
	switch {
	case len(window) == 0 && !unreachable:
		return false
	case e.fresh(t.now):
		return stated
	case e.neverStale() || !stated && !t.takesStale():
		return false
	case len(window) == 0:
		window = []int{maxStale}
	}
	return inWindow(e.staleness(t.now), []int{min(least(window), maxStale)})
}

// unanswered goes on without an answer, or with the error that it was.
func (t *turn) unanswered(status int) {
	if t.standsIn(status == 0) {
		t.o.fwd, t.o.detail, t.o.fwdStatus = "stale", "stale-if-error", status
		t.answer(t.e, false)
		return
	}
	t.fail(http.StatusBadGateway)
}

// notSent: it takes nothing but what is stored (RFC 9111 §5.2.1.7), and did not go
// forward (RFC 9211 §2.2).
func (t *turn) notSent() {
	t.o.words = words{detail: "only-if-cached"}
	t.fail(http.StatusGatewayTimeout)
}

// notModified is RFC 9111 §4.3.4.
func (t *turn) notModified(r *response, named []*kept) {
	updated := t.identified(named, &r.head)
	if len(updated) == 0 {
		t.spent, t.e = true, nil
		t.ask()
		return
	}
	t.o.fwdStatus = http.StatusNotModified
	answer := updated[0]
	if slices.Contains(updated, t.e) {
		answer = t.e
	}
	h := answer.updated(&r.head)
	e := newKept(t.a, &h, answer.status, answer.body, t.now)
	if t.o.detail = t.whyNot("GET", answer.status, &h, true, nil); t.o.detail == "" {
		t.o.stored = true
		t.renewed(e)
	} else {
		if !t.alone {
			t.refuse()
		}
		if t.withdrawn(t.o.detail, answer) {
			delete(t.stored, t.a.target)
		}
	}
	t.answer(e, true)
}

// renewed stores what has been brought up to date.
func (t *turn) renewed(e *kept) {
	t.put(e, t.e)
	if e.single() && !t.alone {
		t.refuse()
	}
}

// withdrawn: what is stored is current, but may not be stored for that reason as it
// has come to be now. It stays, as it was, if this request could not have had it
// stored then either: it came of another.
func (t *turn) withdrawn(why string, was *kept) bool {
	return why != "authorization" && why != "cookie" || t.whyNot("GET", was.status, &was.head, true, nil) != why
}

// identified are the stored responses that a 304 is about.
func (t *turn) identified(named []*kept, h *head) (found []*kept) {
	tag := h.tag()
	modified, dated := h.lastModified()
	if t.e == nil && !strong(tag) {
		return nil // it would have to be one of those that the request does not select
	}
	for _, e := range named {
		theirs, ok := e.lastModified()
		switch {
		case strong(tag) && e.tag() == tag:
			found = append(found, e)
		case strong(tag):
		case tag != "" && weakly(e.tag()) == weakly(tag), tag == "" && dated && ok && theirs.Equal(modified):
			if len(found) == 0 || e.recent().After(found[0].recent()) {
				found = []*kept{e}
			}
		case tag == "" && !dated && len(named) == 1:
			found = append(found, e) // the conditions were about nothing else, though the 304 should have its ETag (RFC 9110 §15.4.5)
		}
	}
	return found
}

// completed goes on with the rest of what was stored in part (RFC 9111 §3.4).
func (t *turn) completed(r *response) {
	s := r.contentRange
	if s == nil || !r.sized || r.total != len(t.e.body) || newKept(t.a, &r.head, r.status, nil, t.now).strongest() != t.e.strongest() {
		t.spent, t.e = true, nil
		t.ask()
		return
	}
	if r.cut {
		t.fail(http.StatusBadGateway)
		return
	}
	e := t.combined(r)
	if e.have != nil {
		t.spent, t.e = true, nil
		t.ask()
		return
	}
	t.o.fwdStatus = http.StatusPartialContent
	if t.o.detail = t.whyNot("GET", e.status, &e.head, true, nil); t.o.detail == "" {
		t.o.stored = true
		t.renewed(e)
	} else {
		if !t.alone {
			t.refuse()
		}
		delete(t.stored, t.a.target)
	}
	t.answer(e, true)
}

// combined is what is stored together with a part that came.
func (t *turn) combined(r *response) *kept {
	e := newKept(t.a, &r.head, http.StatusPartialContent, make([]byte, r.total), t.now)
	e.have = make([]bool, r.total)
	if old := t.e; old != nil && old.have != nil && len(old.body) == r.total && old.strongest() != "" && old.strongest() == e.strongest() {
		h := old.updated(&r.head) // RFC 9111 §3.4
		h.cookie = r.cookie
		if t.a.rng == "" || t.whyNot("GET", http.StatusPartialContent, &h, true, r.placed()) == "partial" { // or it is better alone
			e = newKept(t.a, &h, http.StatusPartialContent, slices.Clone(old.body), t.now)
			e.have = slices.Clone(old.have)
		}
	}
	for i := r.contentRange.first; i < r.contentRange.end; i++ {
		if !e.have[i] { // what both have is the same, as they say
			e.body[i], e.have[i] = r.body[i-r.contentRange.first], true
		}
	}
	if !slices.Contains(e.have, false) {
		e.have, e.status = nil, http.StatusOK // RFC 9110 §15.3.7.3
	}
	return e
}

// fetchPart asks for what the client asks for, and keeps that.
func (t *turn) fetchPart() {
	t.alone = true // nobody waits for a part
	r := t.send(t.a.own())
	switch {
	case r == nil:
		t.fail(http.StatusBadGateway)
	case r.status != http.StatusPartialContent:
		t.judge(r, false)
	case r.contentRange == nil || t.whyNot("GET", r.status, &r.head, r.framed, r.placed()) != "partial" || r.total < 0 || !r.sized:
		t.o.detail = "range"
		t.relayAlone(r, false)
	default:
		t.o.stored = true
		t.relay(r)
		t.o.spans = []span{*r.contentRange}
		if !r.cut {
			t.put(t.combined(r), t.e)
		}
	}
}

// passHead is RFC 9111 §4.3.5.
func (t *turn) passHead() {
	r := t.send(t.a.own())
	switch {
	case r == nil:
		t.unanswered(0)
		return
	case troubled(r.status) && t.standsIn(false):
		t.unanswered(r.status)
		return
	}
	t.relay(r)
	e := t.e
	if e == nil || e.have != nil || r.status != http.StatusOK {
		return
	}
	if e.status != http.StatusOK || !e.sameVersion(&r.head) {
		delete(t.stored, t.a.target) // it is stale, and whatever else is stored is not better
		return
	}
	if r.etag == "" && r.modified == "" && r.length < 0 {
		return // nothing to go by
	}
	h := e.updated(&r.head)
	if why := t.whyNot("GET", e.status, &h, true, nil); why == "" {
		t.put(newKept(t.a, &h, e.status, e.body, t.now), e)
	} else if t.withdrawn(why, e) {
		delete(t.stored, t.a.target)
	}
}

// sameVersion compares with a response to HEAD.
func (e *kept) sameVersion(h *head) bool {
	modified, ok := h.lastModified()
	theirs, had := e.lastModified()
	return (h.etag == "" || h.tag() != "" && h.tag() == e.tag()) && (h.modified == "" || ok && had && modified.Equal(theirs)) &&
		(h.length < 0 || h.length == len(e.body))
}

// passBy forwards what the cache has no answer for.
func (t *turn) passBy(fwd, detail string) {
	t.o.fwd, t.o.detail = fwd, detail
	if t.c.onlyIfCached && fwd != "method" { // RFC 9111 §5.2.1.7
		t.notSent()
		return
	}
	r := t.send(t.a.own())
	if r == nil {
		t.fail(http.StatusBadGateway)
		return
	}
	safe := t.a.method == "GET" || t.a.method == "HEAD" || t.a.method == "OPTIONS"
	if !safe && r.status < 400 { // RFC 9111 §4.4
		for _, target := range []string{t.a.target, r.location, r.contentLocation} {
			delete(t.stored, target)
		}
	}
	t.relay(r)
	if t.answersGet(r) && t.whyNot("GET", r.status, &r.head, r.framed, r.placed()) == "" {
		t.o.detail, t.o.stored = "", true
		e := newKept(t.a, &r.head, r.status, r.body, t.now)
		if !e.single() {
			delete(t.refused, t.a.target)
		}
		t.put(e, nil)
	}
}

// answersGet: a POST whose answer is what a GET would find (RFC 9110 §9.3.3). Ours
// is stored only if all of it is there at once.
func (t *turn) answersGet(r *response) bool {
	_, explicit := r.lifetime(r.status, t.now)
	return t.a.method == "POST" && r.status == http.StatusOK && explicit && r.contentLocation == t.a.target && len(r.body) == 0 && r.sized
}

// placed is which bytes the response holds, if it says of how many.
func (r *response) placed() *span {
	if r.total < 0 {
		return nil
	}
	return r.contentRange
}

// whyNot is RFC 9111 §3, §3.5 and §7.3: "" if the response may be stored, else
// why not, in the README's words.
func (t *turn) whyNot(method string, status int, h *head, framed bool, part *span) string {
	c := h.says()
	authorized, cookie := t.a.fields["Authorization"] != "", t.a.fields["Cookie"] != ""
	shared := c.public || len(c.sMaxAge) > 0
	_, varies := h.names()
	switch {
	case method != "GET":
		return "method"
	case momentary(status), c.mustUnderstand && !defined(status):
		return "status"
	case !framed:
		return "unframed"
	case c.noStore && !c.mustUnderstand: // RFC 9111 §5.2.2.3
		return "no-store"
	case c.private:
		return "private"
	case c.noCache && !h.validator():
		return "no-cache"
	case t.c.noStore: // RFC 9111 §5.2.1.5: of a POST; others have passed by
		return "request-no-store"
	case status == http.StatusPartialContent && (t.a.rng == "" || part == nil || t.a.ifRange != ""): // RFC 9110 §15.3.7: without Content-Type, it is for one who has the rest
		return "range"
	case authorized && !shared && !c.mustRevalidate: // RFC 9111 §3.5
		return "authorization"
	case h.cookie:
		return "set-cookie"
	case cookie && !shared:
		return "cookie"
	case !varies:
		return "vary"
	}
	if why := t.useless(status, h, c); why != "" {
		return why
	}
	if status == http.StatusPartialContent {
		return "partial"
	}
	return ""
}

// useless judges whether the response could answer a later request.
func (t *turn) useless(status int, h *head, c *control) string {
	lifetime, explicit := h.lifetime(status, t.now)
	stale := h.initialAge(t.now) - lifetime
	_, dated := h.lastModified()
	never := (&kept{head: *h}).neverStale()
	switch {
	case !explicit && !understoodToLast(status) && !c.public:
		return "no-freshness"
	case c.noCache, stale < 0:
		return ""
	case !explicit && lifetime == 0 && !dated:
		return "no-freshness"
	case h.validator(), !never && (inWindow(stale, c.whileRevalidate) || inWindow(stale, c.ifError)):
		return ""
	}
	return "stale"
}

// momentary are the statuses that answer one request alone.
func momentary(status int) bool {
	return slices.Contains([]int{304, 401, 407, 408, 412, 416, 417, 421, 425, 428, 429, 431, 511}, status)
}

// defined are those whose meaning this cache knows (RFC 9110 §15).
func defined(status int) bool { return !slices.Contains([]int{299, 451, 599}, status) }
