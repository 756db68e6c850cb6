package rfc9111

import (
	"bytes"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRuns is how many runs a Coverage has at most.
const maxRuns = 64

// ParseContentRange reads the Content-Range of a part (RFC 9110 §14.4). size is -1 where the length of the whole is not given. ok is false for
// what is invalid, of another unit, given twice or too large to count, and for the form that a 416 has: it is not to be combined with anything.
func ParseContentRange(response http.Header) (s Span, size int64, ok bool) {
	lines := response["Content-Range"]
	if len(lines) != 1 {
		return Span{}, 0, false
	}
	unit, spec, ok := strings.Cut(textproto.TrimString(lines[0]), " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return Span{}, 0, false
	}
	first, spec, ok := exact(spec, '-')
	if !ok {
		return Span{}, 0, false
	}
	last, spec, ok := exact(spec, '/')
	if !ok || last < first {
		return Span{}, 0, false
	}
	s = Span{first, last + 1}
	if spec == "*" {
		return s, -1, true
	}
	size, rest, ok := count(spec)
	if !ok || rest != "" || size <= last {
		return Span{}, 0, false
	}
	return s, size, true
}

// exact splits a number and the byte that must follow it off s.
func exact(s string, end byte) (n int64, rest string, ok bool) {
	n, rest, ok = count(s)
	if !ok || rest == "" || rest[0] != end {
		return 0, s, false
	}
	return n, rest[1:], true
}

// maxCount leaves room for sums of two.
const maxCount = 1 << 62

// count is position without what is too large to count.
func count(s string) (n int64, rest string, ok bool) {
	n, rest, ok = position(s)
	return n, rest, ok && n < maxCount
}

// Part is a run of a representation whose version and whole length are known.
type Part struct {
	Span
	Size       int64 // of the whole
	Validators Validators
}

// ParsePart reads a response that arrived at received as a part. ok is true for a 206 that may be stored as one (RFC 9111 §3.3): a single range
// with the length of the whole. Without a strong validator it combines with none.
func ParsePart(status int, response http.Header, received time.Time) (p Part, ok bool) {
	if status != http.StatusPartialContent || hasType(response, "multipart/byteranges") {
		return Part{}, false
	}
	s, size, ok := ParseContentRange(response)
	if !ok || size < 0 || has(response, "Content-Length") && contentLength(response) != s.Len() {
		return Part{}, false
	}
	return Part{Span: s, Size: size, Validators: ParseValidators(response, received)}, true
}

// Combines reports whether both are parts of one representation (RFC 9111 §3.4, RFC 9110 §15.3.7.3).
func (p *Part) Combines(other *Part) bool {
	return p.Size == other.Size && p.Validators.SameStrong(&other.Validators)
}

// Whole returns a new header: that of a part, stored and updated, as the header of the complete 200 of size bytes (RFC 9110 §15.3.7.3). The values
// are shared with part.
func Whole(part http.Header, size int64) http.Header {
	h := make(http.Header, len(part)+1)
	maps.Copy(h, part)
	maps.DeleteFunc(h, func(name string, _ []string) bool { return ofContent(name) })
	h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	return h
}

// AskFor makes h, the header of a request to the upstream, ask for the missing spans of the representation that v is of, or else for the whole
// of another (RFC 9111 §4.3.1, RFC 9110 §13.1.5). The client's own conditions go. It reports false, and h asks for the whole, where that cannot be
// asked for: without spans or with more than 16, or without a strong validator.
func AskFor(h http.Header, missing []Span, v *Validators) bool {
	StripConditions(h)
	strong := v.Strong()
	if strong == "" || len(missing) == 0 || len(missing) > MaxRanges {
		return false
	}
	text := []byte("bytes=")
	for i, s := range missing {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, s.Start, 10)
		text = strconv.AppendInt(append(text, '-'), s.End-1, 10)
	}
	h["Range"] = []string{string(text)}
	h["If-Range"] = []string{strong}
	return true
}

// Coverage is which bytes of a representation are stored. It is immutable; the zero value covers nothing.
type Coverage struct {
	runs []Span // ascending, none touching another
}

// With returns the coverage with s added. ok is false, and the coverage unchanged, for an empty or negative span and where there would be more
// than 64 runs.
func (c Coverage) With(s Span) (_ Coverage, ok bool) {
	if s.Start < 0 || s.Len() <= 0 {
		return c, false
	}
	i := c.search(s.Start)
	j := i
	for ; j < len(c.runs) && c.runs[j].Start <= s.End; j++ {
		s = Span{min(s.Start, c.runs[j].Start), max(s.End, c.runs[j].End)}
	}
	if len(c.runs)-(j-i)+1 > maxRuns {
		return c, false
	}
	runs := make([]Span, 0, len(c.runs)-(j-i)+1)
	runs = append(append(append(runs, c.runs[:i]...), s), c.runs[j:]...)
	return Coverage{runs}, true
}

// Covers reports whether each byte of s is stored (RFC 9111 §3.3). An empty span is not covered.
func (c Coverage) Covers(s Span) bool {
	_, ok := c.Run(s)
	return ok
}

// Run returns the run that s lies in.
func (c Coverage) Run(s Span) (run Span, ok bool) {
	i := c.search(s.Start)
	for ; i < len(c.runs); i++ {
		if run := c.runs[i]; run.Start <= s.Start && s.End <= run.End {
			return run, s.Len() > 0
		} else if run.Start > s.Start {
			break
		}
	}
	return Span{}, false
}

// Complete reports whether all size bytes are stored.
func (c Coverage) Complete(size int64) bool { return size > 0 && c.Covers(Span{0, size}) }

// Missing appends to dst the spans of s that are not stored, ascending, and returns the extended slice.
func (c Coverage) Missing(dst []Span, s Span) []Span {
	for _, run := range c.runs[c.search(s.Start):] {
		if run.Start >= s.End || s.Len() <= 0 {
			break
		}
		if s.Start < run.Start {
			dst = append(dst, Span{s.Start, run.Start})
		}
		s.Start = max(s.Start, run.End)
	}
	if s.Len() > 0 {
		dst = append(dst, s)
	}
	return dst
}

// joined is how long a chunk may become by what is joined with it.
const joined = 16 << 10

// Combine returns the content that c covers, in the order of its runs: chunks are those of old, as this function returned them, and content is that
// of s; c is old with s. What both have, being the same, is taken from chunks. None is taken apart, and of content only as much is kept as is missing,
// so that no memory stays in use that is not the content's; and short ones that touch are joined, so that there are few. chunks are not changed.
func (c Coverage) Combine(old Coverage, chunks [][]byte, s Span, content []byte) (body [][]byte) {
	before := old.runs
	for _, run := range c.runs {
		from := len(body)
		add := func(chunk []byte) {
			if last := len(body) - 1; last >= from && len(body[last])+len(chunk) <= joined {
				body[last] = slices.Concat(body[last], chunk)
				return
			}
			body = append(body, chunk)
		}
		for at := run.Start; at < run.End; {
			if len(before) == 0 || at < before[0].Start {
				end := run.End
				if len(before) > 0 {
					end = min(end, before[0].Start)
				}
				missing := content[at-s.Start : end-s.Start]
				if len(missing) < cap(content) {
					missing = bytes.Clone(missing)
				}
				add(missing)
				at = end
				continue
			}
			for at < before[0].End {
				add(chunks[0])
				at += int64(len(chunks[0]))
				chunks = chunks[1:]
			}
			before = before[1:]
		}
	}
	return body
}

// Runs returns the runs, ascending, none touching another. They are not to be changed.
func (c Coverage) Runs() []Span { return c.runs }

// Len returns the number of bytes.
func (c Coverage) Len() (n int64) {
	for _, run := range c.runs {
		n += run.Len()
	}
	return n
}

// search returns the index of the first run that ends at or after start.
func (c Coverage) search(start int64) int {
	i, _ := slices.BinarySearchFunc(c.runs, start, func(run Span, start int64) int {
		if run.End < start {
			return -1
		}
		return 1
	})
	return i
}
