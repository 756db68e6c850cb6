package rfc9111

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// maxStructured bounds a Structured Field. A longer one is as unreadable as a broken one.
const maxStructured = 64 << 10

// sfKind is the type of a value (RFC 9651 §3).
type sfKind byte

const (
	sfInteger sfKind = iota
	sfDecimal
	sfString
	sfToken
	sfBytes
	sfBoolean
	sfDate
	sfDisplay
	sfInnerList
)

// sfValue is a value of a list or a dictionary, without its parameters.
type sfValue struct {
	kind    sfKind
	integer int64  // of an Integer or a Date; of a Boolean 0 or 1
	text    string // of a String or a Token
}

// sfList calls each with the members of a List (RFC 9651 §4.2.1). When it returns false, the field is to be ignored, whatever each was told.
func sfList(lines []string, each func(sfValue)) (ok bool) {
	p, ok := sfBegin(lines)
	for more := ok && p.s != ""; more; {
		v, good := p.member()
		if !good {
			return false
		}
		each(v)
		if more, ok = p.next(); !ok {
			return false
		}
	}
	return ok
}

// sfDictionary calls each with the members of a Dictionary (RFC 9651 §4.2.2), of which the last with a key counts. When it returns false, the
// field is to be ignored, whatever each was told.
func sfDictionary(lines []string, each func(key string, v sfValue)) (ok bool) {
	p, ok := sfBegin(lines)
	for more := ok && p.s != ""; more; {
		key, good := p.key()
		if !good {
			return false
		}
		v := sfValue{kind: sfBoolean, integer: 1}
		if p.skip('=') {
			v, good = p.member()
		} else {
			good = p.parameters()
		}
		if !good {
			return false
		}
		each(key, v)
		if more, ok = p.next(); !ok {
			return false
		}
	}
	return ok
}

// sfParser holds what is still to be read.
type sfParser struct{ s string }

// sfBegin joins the lines (RFC 9651 §4.2) and takes the space around them away.
func sfBegin(lines []string) (p sfParser, ok bool) {
	size := 0
	for _, line := range lines {
		size += len(line) + 2
	}
	if size > maxStructured {
		return p, false
	}
	return sfParser{strings.Trim(strings.Join(lines, ", "), " ")}, true
}

// next goes on to the next member. A comma at the end is a fault.
func (p *sfParser) next() (more, ok bool) {
	p.s = strings.TrimLeft(p.s, " \t")
	if p.s == "" {
		return false, true
	}
	if !p.skip(',') {
		return false, false
	}
	p.s = strings.TrimLeft(p.s, " \t")
	return p.s != "", p.s != ""
}

// member reads an item or an inner list, with its parameters.
func (p *sfParser) member() (v sfValue, ok bool) {
	if p.skip('(') {
		v.kind = sfInnerList
		return v, p.innerList() && p.parameters()
	}
	if v, ok = p.bare(); !ok {
		return v, false
	}
	return v, p.parameters()
}

// innerList reads what follows its parenthesis (RFC 9651 §4.2.1.2).
func (p *sfParser) innerList() bool {
	for {
		p.s = strings.TrimLeft(p.s, " ")
		if p.skip(')') {
			return true
		}
		if _, ok := p.bare(); !ok || !p.parameters() {
			return false
		}
		if p.s == "" || p.s[0] != ' ' && p.s[0] != ')' {
			return false
		}
	}
}

// parameters reads what nothing here makes use of (RFC 9651 §4.2.3.2).
func (p *sfParser) parameters() bool {
	for p.skip(';') {
		p.s = strings.TrimLeft(p.s, " ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.skip('=') {
			if _, ok := p.bare(); !ok {
				return false
			}
		}
	}
	return true
}

// key reads a key (RFC 9651 §4.2.3.3).
func (p *sfParser) key() (key string, ok bool) {
	n := 0
	for n < len(p.s) {
		c := p.s[n]
		if 'a' <= c && c <= 'z' || c == '*' || n > 0 && (isDigit(c) || c == '_' || c == '-' || c == '.') {
			n++
			continue
		}
		break
	}
	return p.take(n), n > 0
}

// bare reads an item without its parameters (RFC 9651 §4.2.3.1).
func (p *sfParser) bare() (v sfValue, ok bool) {
	if p.s == "" {
		return v, false
	}
	switch c := p.s[0]; {
	case c == '-' || isDigit(c):
		return p.number()
	case c == '"':
		return p.string()
	case c == '*' || isAlpha(c):
		return p.token(), true
	case c == ':':
		return p.bytes()
	case c == '?':
		return p.boolean()
	case c == '@':
		p.take(1)
		v, ok = p.number()
		ok = ok && v.kind == sfInteger
		v.kind = sfDate
		return v, ok
	case c == '%':
		return p.display()
	}
	return v, false
}

// number reads an Integer of up to 15 digits, or a Decimal of up to 12 and 3 (RFC 9651 §4.2.4).
func (p *sfParser) number() (v sfValue, ok bool) {
	negative := p.skip('-')
	n := p.digits(&v.integer)
	if n == 0 || n > 15 {
		return v, false
	}
	if negative {
		v.integer = -v.integer
	}
	if p.skip('.') {
		var fraction int64
		v.kind = sfDecimal
		decimals := p.digits(&fraction)
		return v, n <= 12 && 1 <= decimals && decimals <= 3
	}
	return v, true
}

// digits reads a number and returns its length, 16 for a longer one.
func (p *sfParser) digits(v *int64) (n int) {
	for n < len(p.s) && n < 16 && isDigit(p.s[n]) {
		*v = *v*10 + int64(p.s[n]-'0')
		n++
	}
	p.take(n)
	return n
}

// string reads a String (RFC 9651 §4.2.5).
func (p *sfParser) string() (v sfValue, ok bool) {
	v.kind = sfString
	escaped := false
	for i := 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '\\':
			if i++; i == len(p.s) || p.s[i] != '"' && p.s[i] != '\\' {
				return v, false
			}
			escaped = true
		case c == '"':
			v.text = p.take(i + 1)[1:i]
			if escaped {
				v.text = unescape(v.text)
			}
			return v, true
		case c < ' ' || c > '~':
			return v, false
		}
	}
	return v, false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// token reads a Token (RFC 9651 §4.2.6).
func (p *sfParser) token() sfValue {
	n := 1
	for n < len(p.s) && (isTchar(p.s[n]) || p.s[n] == ':' || p.s[n] == '/') {
		n++
	}
	return sfValue{kind: sfToken, text: p.take(n)}
}

// bytes reads a Byte Sequence (RFC 9651 §4.2.7).
func (p *sfParser) bytes() (v sfValue, ok bool) {
	end := strings.IndexByte(p.s[1:], ':')
	if end < 0 {
		return v, false
	}
	content := p.take(end + 2)[1 : end+1]
	if strings.ContainsAny(content, "\r\n") { // which the decoder skips
		return v, false
	}
	_, err := base64.StdEncoding.DecodeString(content)
	return sfValue{kind: sfBytes}, err == nil
}

// boolean reads a Boolean (RFC 9651 §4.2.8).
func (p *sfParser) boolean() (v sfValue, ok bool) {
	if len(p.s) < 2 || p.s[1] != '0' && p.s[1] != '1' {
		return v, false
	}
	return sfValue{kind: sfBoolean, integer: int64(p.take(2)[1] - '0')}, true
}

// display reads a Display String (RFC 9651 §4.2.10), which nothing here makes use of.
func (p *sfParser) display() (v sfValue, ok bool) {
	if len(p.s) < 2 || p.s[1] != '"' {
		return v, false
	}
	var decoded []byte
	for i := 2; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.take(i + 1)
			return sfValue{kind: sfDisplay}, utf8.Valid(decoded)
		case c == '%':
			if i+2 >= len(p.s) {
				return v, false
			}
			high, low := lowerHex(p.s[i+1]), lowerHex(p.s[i+2])
			if high < 0 || low < 0 {
				return v, false
			}
			decoded = append(decoded, byte(high<<4|low))
			i += 2
		case c < ' ' || c > '~':
			return v, false
		default:
			decoded = append(decoded, c)
		}
	}
	return v, false
}

// take returns the next n bytes and goes on behind them.
func (p *sfParser) take(n int) string {
	s := p.s[:n]
	p.s = p.s[n:]
	return s
}

// skip goes on behind c, if that comes next.
func (p *sfParser) skip(c byte) bool {
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// lowerHex returns the value of a digit, or -1. Capitals are a fault (RFC 9651 §4.2.10).
func lowerHex(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
