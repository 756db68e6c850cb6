package rfc9111

import (
	"maps"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// MaxRanges is how many ranges one request may name, satisfiable or not (RFC 9110 §17.15).
const MaxRanges = 16

// Span is a run of bytes, from Start to before End. It is never empty where this package returns it.
type Span struct{ Start, End int64 }

// Len returns the number of bytes.
func (s Span) Len() int64 { return s.End - s.Start }

// RangeOutcome says what becomes of a request's Range.
type RangeOutcome uint8

// The outcomes.
const (
	RangeIgnored       RangeOutcome = iota // the answer is whole
	RangeSatisfiable                       // 206
	RangeUnsatisfiable                     // 416 with AppendUnsatisfied
)

// Ranges judges the Range of a request that the stored response answers, of which size bytes exist (RFC 9110 §14.2), after NotModified. A Range
// that If-Range forbids is ignored. It appends to dst like ParseRange.
func Ranges(dst []Span, method string, request http.Header, status int, stored *Validators, size int64, now time.Time) ([]Span, RangeOutcome) {
	switch {
	case !has(request, "Range"):
		return dst, RangeIgnored
	case method != http.MethodGet: // RFC 9110 §14.2: defined for no other
		return dst, RangeIgnored
	case status != http.StatusOK && status != http.StatusPartialContent: // §14.2: only in the place of a 200, of which a 206 is a part
		return dst, RangeIgnored
	case !ifRange(request["If-Range"], stored, now):
		return dst, RangeIgnored
	}
	return ParseRange(dst, request["Range"], size)
}

// OnlyRange returns the one span that a request asks for of a response that goes by, of which length bytes are to come: its header is as it arrived at
// received. What asks for several spans, for what there is not, or of an unknown length gets all.
func OnlyRange(method string, request http.Header, status int, response http.Header, length int64, received time.Time) (s Span, ok bool) {
	if status != http.StatusOK || length < 0 || has(response, "Content-Range") {
		return Span{}, false
	}
	var buf [MaxRanges]Span
	validators := ParseValidators(response, received)
	spans, outcome := Ranges(buf[:0], method, request, status, &validators, length, received)
	if outcome != RangeSatisfiable || len(spans) > 1 {
		return Span{}, false
	}
	return spans[0], true
}

// MakePartial makes response, the header of a 200 of size bytes, that of a 206 with that span of it, in answer to such a request.
func MakePartial(response, request http.Header, s Span, size int64) {
	conditional := has(request, "If-Range")
	maps.DeleteFunc(response, func(name string, _ []string) bool { return !InPartial(name, conditional) })
	response["Content-Range"] = []string{string(AppendContentRange(nil, s, size))}
	response["Content-Length"] = []string{strconv.FormatInt(s.Len(), 10)}
	if response["Content-Type"] == nil {
		response["Content-Type"] = nil // or net/http's server would guess one by the part
	}
}

// ifRange judges If-Range (RFC 9110 §13.1.5): the validator must be strong and exactly that of the stored response.
func ifRange(lines []string, stored *Validators, now time.Time) bool {
	if len(lines) != 1 {
		return len(lines) == 0
	}
	line := textproto.TrimString(lines[0])
	if strings.IndexByte(line[:min(3, len(line))], '"') >= 0 { // an entity tag; a date has no quotes
		return strongTag(stored.ETag) && line == stored.ETag
	}
	t, ok := ParseDate(line, now)
	return ok && stored.strongModified() && t.Equal(stored.Modified)
}

// ParseRange appends to dst the spans that Range asks for of a representation with size bytes: within it, none touching another, in the order
// asked for (RFC 9110 §14.1.2, §15.3.7.2). It does not allocate if dst has room for 16. Ignored is what is invalid or of another unit, more
// than 16 ranges, more than two that overlap another, more bytes than there are, and any range of nothing (§14.2, §17.15).
func ParseRange(dst []Span, lines []string, size int64) ([]Span, RangeOutcome) {
	if len(lines) != 1 || size <= 0 {
		return dst, RangeIgnored
	}
	unit, set, ok := strings.Cut(textproto.TrimString(lines[0]), "=")
	if !ok || !strings.EqualFold(unit, "bytes") { // §14.1: units are case-insensitive
		return dst, RangeIgnored
	}
	at, members, overlaps, total := len(dst), 0, 0, int64(0)
	for rest := skipEmpty(set); rest != ""; rest = skipEmpty(rest) {
		if members++; members > MaxRanges {
			return dst[:at], RangeIgnored
		}
		var span Span
		if span, rest, ok = rangeSpec(rest, size); !ok {
			return dst[:at], RangeIgnored
		}
		if span.Len() <= 0 {
			continue // unsatisfiable
		}
		for _, other := range dst[at:] {
			if span.Start < other.End && other.Start < span.End {
				overlaps++
			}
		}
		if total += span.Len(); total > size || overlaps > 2 {
			return dst[:at], RangeIgnored
		}
		dst = append(dst, span)
	}
	switch {
	case members == 0:
		return dst, RangeIgnored
	case len(dst) == at:
		return dst, RangeUnsatisfiable
	}
	return dst[:at+coalesce(dst[at:])], RangeSatisfiable
}

// rangeSpec splits a leading int-range or suffix-range and the white space after it off s. The span is empty where it is unsatisfiable.
func rangeSpec(s string, size int64) (span Span, rest string, ok bool) {
	span.End = size
	if s[0] == '-' {
		var suffix int64
		if suffix, rest, ok = position(s[1:]); !ok {
			return span, s, false
		}
		span.Start = size - min(suffix, size)
	} else {
		if span.Start, rest, ok = position(s); !ok || rest == "" || rest[0] != '-' {
			return span, s, false
		}
		rest = rest[1:]
		if last, after, ok := position(rest); ok {
			if last < span.Start {
				return span, s, false
			}
			rest, span.End = after, min(last, size-1)+1
		}
	}
	rest = skipSpace(rest)
	return span, rest, rest == "" || rest[0] == ','
}

// position splits leading digits off s; a number above MaxInt64 is MaxInt64 (RFC 9110 §14.1.2).
func position(s string) (n int64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		if d := int64(s[i] - '0'); n <= (math.MaxInt64-d)/10 {
			n = n*10 + d
		} else {
			n = math.MaxInt64
		}
	}
	return n, s[i:], i > 0
}

// coalesce joins in place spans that overlap or touch and returns how many are left, each where the first of its spans was.
func coalesce(spans []Span) int {
	for i := 0; i < len(spans); i++ {
		for j := i + 1; j < len(spans); j++ {
			if a, b := spans[i], spans[j]; a.Start <= b.End && b.Start <= a.End {
				spans[i] = Span{min(a.Start, b.Start), max(a.End, b.End)}
				copy(spans[j:], spans[j+1:])
				spans = spans[:len(spans)-1]
				i = -1 // what has grown may touch one that was apart
				break
			}
		}
	}
	return len(spans)
}

// AppendContentRange appends the Content-Range of a part of a representation with size bytes (RFC 9110 §14.4).
func AppendContentRange(dst []byte, s Span, size int64) []byte {
	dst = strconv.AppendInt(append(dst, "bytes "...), s.Start, 10)
	dst = strconv.AppendInt(append(dst, '-'), s.End-1, 10)
	return strconv.AppendInt(append(dst, '/'), size, 10)
}

// AppendUnsatisfied appends the Content-Range of a 416 (RFC 9110 §14.4).
func AppendUnsatisfied(dst []byte, size int64) []byte {
	return strconv.AppendInt(append(dst, "bytes */"...), size, 10)
}

// InPartial reports whether a field of the stored response is sent in a 206 made of it (RFC 9110 §15.3.7), beside Content-Range, Content-Length
// and a Content-Type of multipart/byteranges, which are its own. ifRange says whether the request had If-Range: its client has the rest.
func InPartial(name string, ifRange bool) bool {
	return !ofContent(name) && (!ifRange || !describes(name))
}

// ofContent reports whether the field is about the content of one message, and not about all of the representation (RFC 9110 §8.6, §14.4, RFC 9530
// §2).
func ofContent(name string) bool {
	switch name {
	case "Content-Length", "Content-Range", "Content-Digest", "Content-Md5":
		return true
	}
	return false
}

// Slice calls emit with the chunks of body that s covers, in order; body is the representation from its first byte on. It ends at the first
// error of emit.
func Slice(body [][]byte, s Span, emit func([]byte) error) error {
	for _, chunk := range body {
		n := int64(len(chunk))
		if s.Start < n && s.End > 0 {
			if from, to := max(s.Start, 0), min(s.End, n); from < to {
				if err := emit(chunk[from:to]); err != nil {
					return err
				}
			}
		}
		if s.End <= n {
			return nil
		}
		s.Start, s.End = s.Start-n, s.End-n
	}
	return nil
}

// Multipart is the content of a 206 with more than one part (RFC 9110 §14.6, §15.3.7.2).
type Multipart struct {
	Spans       []Span // in the order they are sent
	Size        int64  // of the whole representation
	ContentType string // of the representation; "": it has none
	Boundary    string // a token that the content does not contain (RFC 2046 §5.1.1)
}

// Type returns the Content-Type of the response. The boundary stands without quotes, which some clients do not understand (RFC 9110 §14.6).
func (m *Multipart) Type() string { return "multipart/byteranges; boundary=" + m.Boundary }

// Length returns the Content-Length of the response.
func (m *Multipart) Length() int64 {
	var scratch [256]byte
	n := int64(len("--") + len(m.Boundary) + len("--\r\n"))
	for i, s := range m.Spans {
		n += int64(len(m.appendHead(scratch[:0], i))) + s.Len() + int64(len("\r\n"))
	}
	return n
}

// Worthwhile reports whether the parts cost hardly more than the whole: at most a tenth, or a KiB. Else the whole is the better answer (RFC 9110
// §15.3.7.2, §17.15).
func (m *Multipart) Worthwhile() bool { return m.Length() <= m.Size+max(m.Size/10, 1<<10) }

// Write calls emit with the content, Length bytes of it. read calls emit with those of a span, as Slice does. emit must not keep its argument. It
// ends at the first error.
func (m *Multipart) Write(read func(s Span, emit func([]byte) error) error, emit func([]byte) error) error {
	var scratch []byte
	for i, s := range m.Spans {
		scratch = m.appendHead(scratch[:0], i)
		if err := emit(scratch); err != nil {
			return err
		}
		if err := read(s, emit); err != nil {
			return err
		}
		if err := emit([]byte("\r\n")); err != nil {
			return err
		}
	}
	return emit(append(append(append(scratch[:0], "--"...), m.Boundary...), "--\r\n"...))
}

func (m *Multipart) appendHead(dst []byte, i int) []byte {
	dst = append(append(append(dst, "--"...), m.Boundary...), "\r\n"...)
	if m.ContentType != "" {
		dst = append(append(append(dst, "Content-Type: "...), m.ContentType...), "\r\n"...)
	}
	return append(AppendContentRange(append(dst, "Content-Range: "...), m.Spans[i], m.Size), "\r\n\r\n"...)
}
