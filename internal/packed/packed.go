// Package packed lays a header out for keeping: one string and one array
// without pointers, which cost the collector nothing, in the place of a map of
// slices. What is unpacked are names and values that lie in that string.
package packed

import (
	"net/http"
	"slices"
	"strings"
)

// Header is a header that is kept. It is immutable, and its zero value is empty.
type Header struct {
	text  string
	lines []line
}

// line is one field line. Lines of one field follow each other, in their order.
type line struct{ name, value span }

// span is a part of the text.
type span struct{ at, n uint32 }

func (h *Header) part(s span) string { return h.text[s.at : s.at+s.n] }

// Pack packs h, but for the fields that skip names. A nil skip leaves none out.
// Fields are in the order of their names.
func Pack(h http.Header, skip func(name string) bool) Header {
	names, lines, size := make([]string, 0, len(h)), 0, 0
	for name, values := range h {
		if skip != nil && skip(name) {
			continue
		}
		names = append(names, name)
		lines += len(values)
		size += len(name)
		for _, value := range values {
			size += len(value)
		}
	}
	slices.Sort(names)
	var text strings.Builder
	text.Grow(size)
	add := func(s string) span {
		at := text.Len()
		text.WriteString(s)
		return span{uint32(at), uint32(len(s))}
	}
	p := Header{lines: make([]line, 0, lines)}
	for _, name := range names {
		n := add(name)
		for _, value := range h[name] {
			p.lines = append(p.lines, line{n, add(value)})
		}
	}
	p.text = text.String()
	return p
}

// Len returns the number of field lines.
func (h *Header) Len() int { return len(h.lines) }

// Size returns the bytes that the header takes.
func (h *Header) Size() int64 { return int64(len(h.text)) + int64(len(h.lines))*16 }

// Get returns the first value of a field, "" where it is absent. The name is
// canonical.
func (h *Header) Get(name string) string {
	for i := range h.lines {
		if h.part(h.lines[i].name) == name {
			return h.part(h.lines[i].value)
		}
	}
	return ""
}

// Values appends the values of a field to into.
func (h *Header) Values(name string, into []string) []string {
	for i := range h.lines {
		if h.part(h.lines[i].name) == name {
			into = append(into, h.part(h.lines[i].value))
		}
	}
	return into
}

// Each calls f for each field with its values, which lie in buf as long as that
// has the capacity of Len. They are f's to keep, and to write to.
func (h *Header) Each(buf []string, f func(name string, values []string)) {
	for i := 0; i < len(h.lines); {
		name, from := h.lines[i].name, len(buf)
		for ; i < len(h.lines) && h.lines[i].name == name; i++ {
			buf = append(buf, h.part(h.lines[i].value))
		}
		f(h.part(name), buf[from:len(buf):len(buf)])
	}
}

// Header unpacks all of it.
func (h *Header) Header() http.Header {
	out := make(http.Header, len(h.lines))
	h.Each(make([]string, 0, len(h.lines)), func(name string, values []string) { out[name] = values })
	return out
}
