package rfc9111

import (
	"crypto/rand"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is one stored response: its head, its content, and on what terms it answers requests. It is immutable but for its Hit, and safe for
// concurrent use; what it returns is not to be changed.
type Entry struct {
	// What each hit reads comes first.
	Status   int
	Head     Packed // without what belongs to a connection, or to one answer
	Body     [][]byte
	only     [1][]byte   // what Body is, where that is one chunk
	Length   int64       // of Body
	part     *storedPart // nil: it is whole
	Vary     []string
	variant  []byte // that a request has asked for, by Vary
	Terms    Terms
	Received time.Time
	hit      atomic.Pointer[Hit]
	Refers   bool // it has Location or Content-Location, whose meaning may depend on where a request came in
	Untyped  bool // it has no Content-Type

	Validators Validators
	Aged       string // the Age that it came with; "": none
	Size       int64  // of all of it, in bytes
	tags       []string
	anyTag     bool          // too many to be kept: it may have any
	maxStale   time.Duration // for how long it is kept once it is stale
}

// storedPart says which bytes of a representation a Body holds, one run after the other.
type storedPart struct {
	Part     // its span is not used
	coverage Coverage
}

// NewEntry returns what is kept of a response, but for its content. strip takes from its header what belongs to the connection; the field that
// skip names is not kept either, for it belongs to one request. The response's header is changed.
func NewEntry(x *Exchange, c *Config, strip func(http.Header), skip string) *Entry {
	head := x.Response
	e := &Entry{
		Status: x.Status, Received: x.ResponseTime, Terms: TermsOf(x, c), maxStale: c.MaxStale, Aged: strings.Clone(head.Get("Age")),
		Refers: head["Location"] != nil || head["Content-Location"] != nil, Untyped: head["Content-Type"] == nil,
	}
	vary, _ := ParseVary(head)
	e.Vary = owned(vary)
	e.variant = AppendVariant(nil, e.Vary, x.Request)
	tags, ok := Tags(head)
	e.tags, e.anyTag = owned(tags), !ok
	strip(head)
	if head["Date"] == nil { // RFC 9110 §6.6.1
		head["Date"] = []string{e.Received.UTC().Format(http.TimeFormat)}
	}
	if bodyless(e.Status) {
		delete(head, "Content-Length") // RFC 9110 §8.6
	}
	e.Validators = ParseValidators(head, e.Received)
	e.pack(head, func(name string) bool { return name == "Age" || name == skip })
	return e
}

// pack keeps a header, and none that was kept before: the validators lie in it.
func (e *Entry) pack(head http.Header, skip func(name string) bool) {
	e.Head = Pack(head, skip)
	e.Validators.ETag = lyingIn(e.Head.Get("Etag"), e.Validators.ETag)
	e.Validators.LastModified = lyingIn(e.Head.Get("Last-Modified"), e.Validators.LastModified)
}

// bodyless reports whether an answer to GET has no content by its status (RFC 9110 §6.4.1).
func bodyless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// lyingIn returns s as a part of text, if it is one, so that it keeps no other memory alive.
func lyingIn(text, s string) string {
	if i := strings.Index(text, s); i >= 0 {
		return text[i : i+len(s)]
	}
	return s
}

// owned returns a copy of a list, for the same.
func owned(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.Clone(s)
	}
	return out
}

// entryOverhead is what an entry costs beside its bytes.
const entryOverhead = 512

// With returns the entry with its content.
func (e *Entry) With(body [][]byte) *Entry {
	whole := e.copied()
	whole.setBody(body)
	whole.Length = lengthOf(body)
	if e.Head.Get("Content-Length") == "" && !bodyless(e.Status) {
		head := e.Head.Header()
		head["Content-Length"] = []string{strconv.FormatInt(whole.Length, 10)}
		whole.pack(head, nil)
	}
	whole.Size = entryOverhead + whole.Length + whole.Head.Size() + int64(len(whole.variant)) + int64(len(body))*24
	for _, list := range [][]string{whole.Vary, whole.tags} {
		for _, s := range list {
			whole.Size += int64(len(s)) + 16
		}
	}
	return whole
}

func lengthOf(body [][]byte) (n int64) {
	for _, chunk := range body {
		n += int64(len(chunk))
	}
	return n
}

// copied returns the entry without its Hit.
func (e *Entry) copied() *Entry {
	c := &Entry{
		Status: e.Status, Head: e.Head, Length: e.Length, Size: e.Size, Vary: e.Vary, Validators: e.Validators, Terms: e.Terms, Received: e.Received,
		Aged: e.Aged, Refers: e.Refers, Untyped: e.Untyped, variant: e.variant, part: e.part, tags: e.tags, anyTag: e.anyTag, maxStale: e.maxStale,
	}
	c.setBody(e.Body)
	return c
}

func (e *Entry) setBody(chunks [][]byte) {
	if e.Body = chunks; len(chunks) == 1 {
		e.only = [1][]byte{chunks[0]}
		e.Body = e.only[:]
	}
}

// Newer returns what the entry is after a newer response without content to a request that selects it (RFC 9111 §4.3.4, §4.3.5), as an exchange to
// be judged and to make a NewEntry of, With the same Body.
func (e *Entry) Newer(x *Exchange) Exchange {
	return Exchange{
		Method: http.MethodGet, Status: e.Status, Target: x.Target, Request: x.Request, Sent: x.Sent, Response: Update(e.Head.Header(), x.Response),
		Injected: x.Injected, Framed: true, RequestTime: x.RequestTime, ResponseTime: x.ResponseTime,
	}
}

// Withdrawn reports whether the entry must go, for Storable says that of what it has become, which newer is. It may stay, as it was, where the request
// alone is in the way, as it would have been before: the entry came of another's, and is current.
func (e *Entry) Withdrawn(v Verdict, newer *Exchange, c *Config) bool {
	if v != VerdictAuthorization && v != VerdictCookie {
		return v != VerdictStore
	}
	old := *newer
	old.Response, old.parsed = e.Head.Header(), false
	return Storable(&old, c) != v
}

// Matches reports whether a request with that header selects the entry (RFC 9111 §4.1).
func (e *Entry) Matches(request http.Header) bool { return MatchVariant(e.variant, e.Vary, request) }

// AppendVariant appends which variant a request with that header asks for, if the entry's Vary is that of all variants.
func (e *Entry) AppendVariant(dst []byte, request http.Header) []byte {
	return AppendVariant(dst, e.Vary, request)
}

// Age returns the entry's age at now (RFC 9111 §4.2.3).
func (e *Entry) Age(now time.Time) time.Duration { return CurrentAge(e.Terms.Age, e.Received, now) }

// Useless returns when the entry can be of no use any more: it is stale, and cannot be validated, nor be served stale.
func (e *Entry) Useless() time.Time {
	stale := max(0, e.Terms.StaleWhileRevalidate, e.Terms.StaleIfError)
	if e.Terms.StaleIfError == Absent || e.Validators.Any() {
		stale = max(stale, e.maxStale)
	}
	return e.Received.Add(e.Terms.Lifetime - e.Terms.Age + stale + time.Second)
}

// expire returns the entry as stale.
func (e *Entry) expire(now time.Time) *Entry {
	old := e.copied()
	old.Terms.Lifetime = min(e.Terms.Lifetime, e.Age(now))
	return old
}

func (e *Entry) tagged(tags []string) bool {
	return e.anyTag || slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(e.tags, tag) })
}

// Hit returns the fields of a hit at an age, made once for each second.
func (e *Entry) Hit(age time.Duration, of *Lines) *Hit {
	seconds := int64(age / time.Second)
	if h := e.hit.Load(); h != nil && h.seconds == seconds {
		return h
	}
	h := of.Hit(seconds, e.Terms.Lifetime)
	e.hit.Store(h)
	return h
}

// Asked is a request that an entry may answer.
type Asked struct {
	Method string
	Header http.Header // conditions and Range are looked at
	Now    time.Time   // when it came
}

// NotModified reports whether the entry answers a request by a 304: its client has it.
func (e *Entry) NotModified(a Asked) bool {
	return NotModified(a.Method, a.Header, e.Status, &e.Validators, a.Now)
}

// Parts returns the parts of the entry that a request asks for, and appends their spans to dst. It is to be asked after NotModified. Several that
// cost more than the whole are ignored, if there is the whole.
func (e *Entry) Parts(dst []Span, a Asked) (Multipart, RangeOutcome) {
	m := Multipart{Size: e.Length}
	if e.part != nil {
		m.Size = e.part.Size
	}
	var outcome RangeOutcome
	m.Spans, outcome = Ranges(dst, a.Method, a.Header, e.Status, &e.Validators, m.Size, a.Now)
	if len(m.Spans) > 1 {
		m.ContentType, m.Boundary = e.Head.Get("Content-Type"), rand.Text()
		if e.part == nil && !m.Worthwhile() {
			outcome = RangeIgnored
		}
	}
	return m, outcome
}

// StatusFor returns the status that the entry answers a request with.
func (e *Entry) StatusFor(a Asked) int {
	if e.NotModified(a) {
		return http.StatusNotModified
	}
	switch _, outcome := e.Parts(nil, a); outcome {
	case RangeSatisfiable:
		return http.StatusPartialContent
	case RangeUnsatisfiable:
		return http.StatusRequestedRangeNotSatisfiable
	}
	return e.Status
}

// Read calls emit with the bytes of a span of the representation, which are all stored.
func (e *Entry) Read(s Span, emit func([]byte) error) error {
	if e.part == nil {
		return Slice(e.Body, s, emit)
	}
	at := int64(0)
	for _, run := range e.part.coverage.Runs() {
		if run.Start <= s.Start && s.End <= run.End {
			return Slice(e.Body, Span{at + s.Start - run.Start, at + s.End - run.Start}, emit)
		}
		at += run.Len()
	}
	return io.ErrUnexpectedEOF
}

// Partial reports whether parts of a representation are stored, and not all of it.
func (e *Entry) Partial() bool { return e.part != nil }

// Covers reports whether the entry, of which parts are stored, has all that a request asks for.
func (e *Entry) Covers(a Asked) bool {
	var buf [MaxRanges]Span
	parts, outcome := e.Parts(buf[:0], a)
	return outcome == RangeSatisfiable && !slices.ContainsFunc(parts.Spans, func(s Span) bool { return !e.part.coverage.Covers(s) })
}

// Missing returns what is to be asked for, so that the entry, of which parts are stored, is whole: one span, of a representation of at most so many
// bytes. It is empty where that is not to be had.
func (e *Entry) Missing(most int64) (gap Span) {
	if gaps := e.part.coverage.Missing(nil, Span{End: e.part.Size}); len(gaps) == 1 && e.part.Size <= most {
		gap = gaps[0]
	}
	return gap
}

// Combines reports whether a part is of the representation of which parts are stored (RFC 9111 §3.4).
func (e *Entry) Combines(part *Part) bool { return e.part != nil && e.part.Combines(part) }

// Further returns what the head of the entry, of which parts are stored, is after another part of the same representation (RFC 9111 §3.4), as an
// exchange to be judged and to make a NewEntry of, to be Combined: a part that answers If-Range need not repeat what is stored (RFC 9110 §15.3.7). What
// is of the further part alone is its own, and so is a cookie, which forbids to store it.
func (e *Entry) Further(x *Exchange) Exchange {
	newer := e.Newer(x)
	newer.Status = x.Status
	for _, name := range [...]string{"Content-Length", "Content-Range", "Set-Cookie"} {
		if delete(newer.Response, name); x.Response[name] != nil {
			newer.Response[name] = x.Response[name]
		}
	}
	return newer
}

// Combined returns e, the head of a part, with its content and with what old, which may be nil, has of the same representation (RFC 9111 §3.4), unless
// that would be more than most bytes. It may be the whole.
func (e *Entry) Combined(old *Entry, got *Part, content []byte, most int64) *Entry {
	var coverage Coverage
	if old != nil && old.Combines(got) {
		coverage = old.part.coverage
	}
	next, ok := coverage.With(got.Span)
	if !ok || next.Len() > most {
		coverage = Coverage{}
		next, _ = coverage.With(got.Span)
	}
	var chunks [][]byte
	if len(coverage.Runs()) > 0 {
		chunks = old.Body
	}
	body := next.Combine(coverage, chunks, got.Span, content)
	all := e.copied()
	all.part = &storedPart{*got, next}
	if next.Complete(got.Size) {
		all.part, all.Status = nil, http.StatusOK
		all.pack(Whole(all.Head.Header(), got.Size), nil)
	}
	return all.With(body)
}
