package rfc9111

import "time"

// longestDirective is the length of "stale-while-revalidate", beyond which a name is an extension.
const longestDirective = len("stale-while-revalidate")

// directive is one member of a Cache-Control list: token [ "=" ( token / quoted-string ) ] (RFC 9111 §5.2).
type directive struct {
	name, value string // value without its quotes, quoted pairs as they came
	bare        bool   // there is no argument
	broken      bool   // it does not follow the grammar: there is no name, and value is all of it
}

// fold returns the name in lower case, or nothing for a name that is longer than any that we know.
func (d directive) fold(buf *[longestDirective]byte) []byte {
	if len(d.name) > len(buf) {
		return nil
	}
	for i := range len(d.name) {
		c := d.name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(d.name)]
}

// mentions reports whether a broken member holds a directive's name, given in letters only, whatever stands between them: "no store", an open
// quote and a misplaced semicolon leave the same letters behind.
func (d directive) mentions(name string) bool {
	for i := range len(d.value) {
		if rest := d.value[i:]; isAlpha(rest[0]) && lettersBegin(rest, name) {
			return true
		}
	}
	return false
}

// lettersBegin reports whether the letters of s begin with those of lower.
func lettersBegin(s, lower string) bool {
	n := 0
	for i := 0; i < len(s) && n < len(lower); i++ {
		if !isAlpha(s[i]) {
			continue
		}
		if s[i]|0x20 != lower[n] {
			return false
		}
		n++
	}
	return n == len(lower)
}

// delta returns the argument as delta-seconds, which RFC 9111 §5.2 has us take from a token and from a quoted string alike.
func (d directive) delta() (v time.Duration, ok bool) { return parseDelta(d.value) }

// parseDelta reads 1*DIGIT, capped at MaxDelta (RFC 9111 §1.2.2); anything else is 0 and not ok.
func parseDelta(s string) (v time.Duration, ok bool) {
	const most = int64(MaxDelta / time.Second)
	seconds := int64(0)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		seconds = min(seconds*10+int64(s[i]-'0'), most)
	}
	return time.Duration(seconds) * time.Second, s != ""
}

// scanner walks the directives of a Cache-Control field that may have several lines. A member that breaks the grammar is handed out as such,
// and ends where the list goes on.
type scanner struct {
	lines []string // not yet begun
	rest  string   // of the line at hand
}

func (s *scanner) next() (d directive, ok bool) {
	for {
		i := 0
		for i < len(s.rest) && (isSpace(s.rest[i]) || s.rest[i] == ',') { // RFC 9110 §5.6.1.2: empty members are ignored
			i++
		}
		if s.rest = s.rest[i:]; s.rest != "" {
			return s.member(), true
		}
		if len(s.lines) == 0 {
			return directive{}, false
		}
		s.rest, s.lines = s.lines[0], s.lines[1:]
	}
}

func (s *scanner) member() (d directive) {
	n := tokenLen(s.rest)
	rest, ok := s.rest[n:], n > 0
	d.name, d.bare = s.rest[:n], true
	if ok && rest != "" && rest[0] == '=' {
		d.bare = false
		d.value, rest, ok = argument(rest[1:])
	}
	for rest != "" && isSpace(rest[0]) {
		rest = rest[1:]
	}
	if !ok || rest != "" && rest[0] != ',' {
		n := memberLen(s.rest)
		d = directive{value: s.rest[:n], broken: true}
		rest = s.rest[n:]
	}
	s.rest = rest
	return d
}

// memberLen returns where the broken member that s begins with ends: at a comma outside of quotes. A quote that is not closed takes the whole
// line, for nobody knows where it should have been.
func memberLen(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case s[i] == ',' && !quoted:
			return i
		}
	}
	return len(s)
}

// argument splits a leading token or quoted string off s (RFC 9110 §5.6.2, §5.6.4).
func argument(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		n := tokenLen(s)
		return s[:n], s[n:], n > 0
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:], true
		}
	}
	return "", "", false
}

// tokenLen returns the length of the token that s begins with (RFC 9110 §5.6.2).
func tokenLen(s string) int {
	for i := range len(s) {
		if !isTchar(s[i]) {
			return i
		}
	}
	return len(s)
}

// tchars has the bit of each tchar set: digits, letters and !#$%&'*+-.^_`|~ (RFC 9110 §5.6.2).
const (
	tcharsLow  uint64 = 0x03ff_6cfa_0000_0000
	tcharsHigh uint64 = 0x57ff_ffff_c7ff_fffe
)

func isTchar(c byte) bool {
	if c < 64 {
		return tcharsLow>>c&1 != 0
	}
	return c < 128 && tcharsHigh>>(c-64)&1 != 0
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' } // OWS, RFC 9110 §5.6.3
