package rfc9111

import (
	"encoding/binary"
	"net/http"
	"slices"
)

// Packed is a header laid out for keeping: one string, which costs the collector
// nothing and lies in one place, instead of a map of slices. What is unpacked are
// names and values that lie in that string. It is immutable, and its zero value is
// empty.
type Packed struct {
	text  string // of each line, the lengths of name and value, as varints, and both
	lines int
}

// Pack packs h, but for the fields that skip names. A nil skip leaves none out.
// Fields are in the order of their names, and lines of one field in theirs.
func Pack(h http.Header, skip func(name string) bool) Packed {
	names, size := make([]string, 0, len(h)), 0
	for name, values := range h {
		if name == "" || skip != nil && skip(name) { // no field has an empty name
			continue
		}
		names = append(names, name)
		size += len(name)
		for _, value := range values {
			size += len(value) + 2*binary.MaxVarintLen32
		}
	}
	slices.Sort(names)
	p, text := Packed{}, make([]byte, 0, size)
	for _, name := range names {
		for i, value := range h[name] {
			if i > 0 {
				name = "" // that of the line before
			}
			text = binary.AppendUvarint(text, uint64(len(name)))
			text = binary.AppendUvarint(text, uint64(len(value)))
			text = append(append(text, name...), value...)
			p.lines++
		}
	}
	p.text = string(text)
	return p
}

// cutLine returns the first line of text, which is not empty, and what follows.
func cutLine(text string) (name, value, rest string) {
	n, text := cutLength(text)
	m, text := cutLength(text)
	return text[:n], text[n : n+m], text[n+m:]
}

// cutLength reads a varint.
func cutLength(text string) (n int, rest string) {
	for i, shift := 0, 0; ; i, shift = i+1, shift+7 {
		n |= int(text[i]&0x7f) << shift
		if text[i] < 0x80 {
			return n, text[i+1:]
		}
	}
}

// Len returns the number of field lines.
func (h *Packed) Len() int { return h.lines }

// Size returns the bytes that the header takes.
func (h *Packed) Size() int64 { return int64(len(h.text)) }

// Get returns the first value of a field, "" where it is absent. The name is
// canonical.
func (h *Packed) Get(name string) string {
	for text := h.text; text != ""; {
		field, value, rest := cutLine(text)
		if field == name {
			return value
		}
		text = rest
	}
	return ""
}

// Each calls f for each field with its values, which lie in buf as long as that
// has the capacity of Len. They are f's to keep, and to write to.
func (h *Packed) Each(buf []string, f func(name string, values []string)) {
	for text := h.text; text != ""; {
		name, value, rest := cutLine(text)
		from := len(buf)
		buf = append(buf, value)
		for rest != "" && rest[0] == 0 { // no name: the same field
			_, value, rest = cutLine(rest)
			buf = append(buf, value)
		}
		f(name, buf[from:len(buf):len(buf)])
		text = rest
	}
}

// Header unpacks all of it.
func (h *Packed) Header() http.Header {
	out := make(http.Header, h.lines)
	h.Each(make([]string, 0, h.lines), func(name string, values []string) { out[name] = values })
	return out
}
