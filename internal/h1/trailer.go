package h1

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strings"
)

const (
	errFields   ProtocolError = "too many fields"
	errLineEnd  ProtocolError = "fields do not end in an empty line"
	errBareCR   ProtocolError = "CR within a field line"
	errName     ProtocolError = "field name is no token"
	errFold     ProtocolError = "continuation line without a field"
	errObscured ProtocolError = "framing field in a form that others may misread"
)

// parseFields adds the field lines in raw, of which the last is empty, to header. A header section and a trailer section are the
// same here (RFC 9112 §5, §7.1.2). It rewrites raw in place and allocates one string for all names and values, and one slice for
// all values that have their name alone.
func parseFields(raw []byte, header http.Header, maxFields int) error {
	raw, n, err := normalize(raw, maxFields)
	if n == 0 || err != nil {
		return err
	}
	text, values := string(raw), make([]string, n)
	for text != "" {
		end, colon := strings.IndexByte(text, '\n'), strings.IndexByte(text, ':')
		name, value := trimOWS(text[:colon]), trimOWS(strings.TrimSuffix(text[colon+1:end], "\r"))
		text = text[end+1:]
		if former, ok := header[name]; ok {
			header[name] = append(former, value)
			continue
		}
		values[0] = value
		header[name], values = values[:1:1], values[1:]
	}
	return nil
}

// normalize judges field lines and rewrites them in place until nothing in them can be read in two ways: names become canonical, and
// control bytes and line ends within values become spaces. It returns them without the empty line, and how many fields they are.
// Continuation lines count towards maxFields.
func normalize(raw []byte, maxFields int) (lines []byte, fields int, err error) {
	var name []byte // of the last field
	count := 0
	for i := 0; ; {
		n := bytes.IndexByte(raw[i:], '\n')
		if n < 0 {
			return nil, 0, errLineEnd
		}
		line, next := bytes.TrimSuffix(raw[i:i+n], cr), i+n+1
		if len(line) == 0 {
			if next != len(raw) {
				return nil, 0, errLineEnd
			}
			return raw[:i], fields, nil
		}
		if count++; count > maxFields {
			return nil, 0, errFields
		}
		value := line
		if isSpace(line[0]) { // RFC 9112 §5.2: obs-fold, to be replaced by spaces
			switch {
			case fields == 0:
				return nil, 0, errFold
			case framing(name):
				return nil, 0, errObscured
			}
			raw[i-1] = ' '
			if raw[i-2] == '\r' {
				raw[i-2] = ' '
			}
		} else if name, value, err = splitField(line); err != nil {
			return nil, 0, err
		} else {
			fields++
		}
		switch dirty, ok := clean(value); {
		case !ok:
			return nil, 0, errBareCR
		case dirty && framing(name):
			return nil, 0, errObscured
		}
		i = next
	}
}

// splitField makes the name in a field line canonical, and returns it and what follows the colon.
func splitField(line []byte) (name, value []byte, err error) {
	n := canonicalize(line)
	colon := n
	for colon < len(line) && isSpace(line[colon]) { // RFC 9112 §5.1: a proxy removes it
		colon++
	}
	name = line[:n]
	switch {
	case n == 0, colon == len(line), line[colon] != ':':
		return nil, nil, errName
	case colon > n && framing(name):
		return nil, nil, errObscured
	}
	return name, line[colon+1:], nil
}

// canonicalize rewrites the token that line begins with as http.CanonicalHeaderKey does, and returns its length.
func canonicalize(line []byte) int {
	form := &upperToken
	for i, c := range line {
		c = form[c]
		if c == 0 {
			return i
		}
		line[i] = c
		form = &lowerToken
		if c == '-' {
			form = &upperToken
		}
	}
	return len(line)
}

// upperToken and lowerToken hold the form of each byte that a token may have (RFC 9110 §5.6.2), and 0 for each other.
var upperToken, lowerToken = tokenForms()

func tokenForms() (upper, lower [256]byte) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789") {
		upper[c], lower[c] = c, c
	}
	for c := byte('a'); c <= 'z'; c++ {
		C := c - 'a' + 'A'
		upper[c], lower[c] = C, c
		upper[C], lower[C] = C, c
	}
	return upper, lower
}

// framing reports whether name, canonical, is one of the fields that delimit a message.
func framing(name []byte) bool {
	return string(name) == "Content-Length" || string(name) == "Transfer-Encoding"
}

// clean makes each control byte but the tab a space (RFC 9110 §5.5), and reports whether there was one. It is not ok with CR, which it
// leaves: whether that ends the line is what parsers differ in (RFC 9112 §2.2).
func clean(value []byte) (dirty, ok bool) {
	for ; len(value) >= 8; value = value[8:] {
		if !controls(binary.LittleEndian.Uint64(value)) {
			continue
		}
		was, ok := cleanBytes(value[:8])
		if !ok {
			return dirty, false
		}
		dirty = dirty || was
	}
	was, ok := cleanBytes(value)
	return dirty || was, ok
}

// controls reports whether a byte of word is below 0x20, or 0x7f.
func controls(word uint64) bool {
	const each = 0x0101010101010101
	del := word ^ 0x7f*each
	return ((word-0x20*each)&^word|(del-each)&^del)&(0x80*each) != 0
}

func cleanBytes(value []byte) (dirty, ok bool) {
	for i, c := range value {
		switch {
		case c == '\r':
			return dirty, false
		case c < ' ' && c != '\t', c == 0x7f:
			value[i], dirty = ' ', true
		}
	}
	return dirty, true
}

var cr, lf = []byte("\r"), []byte("\n")

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// trimOWS trims optional white space, RFC 9110 §5.6.3.
func trimOWS(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}
