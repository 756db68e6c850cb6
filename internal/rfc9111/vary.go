package rfc9111

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

const (
	maxVaryNames = 16
	maxVaryBytes = 4 << 10
	maxRanked    = 24 // members of a field with weights; a longer one is compared as it came
)

// ParseVary returns the request fields that select the response (RFC 9110 §12.5.5): canonical, sorted, each once; nil when none do. An encoded
// response is selected by Accept-Encoding whether it says so or not (RFC 9110 §12.5.3). ok is false when no later request can be matched: for
// "*", what is no field name, more than 16 names or 4 KiB, and fields that a gateway sets itself, whose value at the client says nothing.
func ParseVary(response http.Header) (names []string, ok bool) {
	size := 0
	for _, line := range response["Vary"] {
		if size += len(line); size > maxVaryBytes {
			return nil, false
		}
		for member := range strings.SplitSeq(line, ",") {
			name := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(member))
			if name == "" {
				continue
			}
			if name == "*" || tokenLen(name) < len(name) || setByGateway(name) {
				return nil, false
			}
			names = append(names, name)
		}
	}
	encoded, byDictionary := codings(response)
	if encoded {
		names = append(names, "Accept-Encoding")
	}
	if byDictionary {
		names = append(names, "Available-Dictionary")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxVaryNames {
		return nil, false
	}
	return names, true
}

// setByGateway reports whether a gateway writes the field anew in each request; Host moreover is no member of a http.Header.
func setByGateway(name string) bool {
	switch name {
	case "Host", "Via", "Forwarded", "X-Real-Ip":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// codings reports whether the response is encoded, and whether only clients with the same dictionary can decode it.
func codings(response http.Header) (encoded, byDictionary bool) {
	for _, line := range response["Content-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			coding = trimSpace(coding)
			encoded = encoded || coding != ""
			byDictionary = byDictionary || ofDictionary(coding)
		}
	}
	return encoded, byDictionary
}

func ofDictionary(coding string) bool {
	return strings.EqualFold(coding, "dcb") || strings.EqualFold(coding, "dcz")
}

// decodable reports whether a request says that its client knows the codings of a Content-Encoding (RFC 9110 §12.5.3), and these need no dictionary.
func decodable(request http.Header, encoding string) bool {
	for coding := range strings.SplitSeq(encoding, ",") {
		coding = trimSpace(coding)
		if coding != "" && (ofDictionary(coding) || !accepts(request["Accept-Encoding"], coding)) {
			return false
		}
	}
	return true
}

// accepts reports whether Accept-Encoding names the coding, and not to refuse it.
func accepts(lines []string, coding string) bool {
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			member = trimSpace(member)
			n := tokenLen(member)
			if strings.EqualFold(member[:n], coding) {
				thousandths, _, ok := weight(member[n:])
				return ok && thousandths > 0
			}
		}
	}
	return false
}

// AppendVariant appends the secondary cache key (RFC 9111 §4.1) of request under the names of ParseVary and returns the extended slice. Keys are
// equal when the names are and each field says the same: its lines are joined, white space goes where it has no meaning, and in Accept,
// Accept-Charset, Accept-Encoding and Accept-Language also the case, the way a weight is written and the order of members with different
// weights; in Accept-Charset and Accept-Encoding, whose specification gives the order no meaning, of all. Whatever else differs makes another key. An absent field equals only an absent one.
func AppendVariant(dst []byte, names []string, request http.Header) []byte {
	for _, name := range names {
		dst = appendField(appendString(dst, name), name, request[name])
	}
	return dst
}

// MatchVariant reports whether request selects the response that was stored with the secondary key stored, made by AppendVariant with the same
// names. It allocates only for keys above 512 bytes.
func MatchVariant(stored []byte, names []string, request http.Header) bool {
	if len(names) == 0 {
		return len(stored) == 0
	}
	var scratch [512]byte
	return bytes.Equal(stored, AppendVariant(scratch[:0], names, request))
}

// appendField appends one field: four bytes that say how long its value is, plus one, or that it is absent; then the value.
func appendField(dst []byte, name string, lines []string) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if len(lines) == 0 {
		return dst
	}
	dst = appendValue(dst, name, lines)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4+1))
	return dst
}

// appendValue appends the value in the form that all fields of its meaning share. What breaks the grammar is taken as it came: it has no meaning
// that is known, and cannot be taken for a value in that form, which keeps the grammar.
func appendValue(dst []byte, name string, lines []string) []byte {
	at, ok := len(dst), false
	switch name {
	case "Accept-Encoding", "Accept-Charset": // RFC 9110 §12.5.2, §12.5.3
		dst, ok = appendRanked(dst, lines, false, false)
	case "Accept-Language": // RFC 9110 §12.5.4: some take the order for a priority
		dst, ok = appendRanked(dst, lines, false, true)
	case "Accept": // RFC 9110 §12.5.1
		dst, ok = appendRanked(dst, lines, true, true)
	case "Access-Control-Request-Headers", "Cache-Control", "Pragma", "Prefer", "Priority", "Sec-Ch-Ua", "Sec-Ch-Ua-Full-Version-List":
		dst, ok = appendListed(dst, lines)
	}
	if ok {
		return dst
	}
	dst = dst[:at]
	for i, line := range lines {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, trimSpace(line)...)
	}
	return dst
}

// appendListed appends the members of a list without the white space around them, parted by commas, in their order and case.
func appendListed(dst []byte, lines []string) (_ []byte, ok bool) {
	for i, line := range lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		for rest := line; ; {
			n := 0
			for n < len(rest) && rest[n] != ',' {
				if rest[n] != '"' {
					n++
					continue
				}
				_, after, closed := argument(rest[n:])
				if !closed {
					return dst, false
				}
				n = len(rest) - len(after)
			}
			dst = append(dst, trimSpace(rest[:n])...)
			if n == len(rest) {
				break
			}
			dst, rest = append(dst, ','), rest[n+1:]
		}
	}
	return dst, true
}

// ranked is a member of a field with weights, by its place in the key.
type ranked struct {
	start, weightAt, end int
	weight               int // in thousandths
}

// appendRanked appends the members of a field with weights, each followed by a comma, those with the greater weight first. Of equal ones it keeps the
// order where that may mean something; else they are sorted. It ends at the first member that breaks the grammar.
func appendRanked(dst []byte, lines []string, media, order bool) (_ []byte, ok bool) {
	var members [maxRanked]ranked
	n, at, ordered := 0, len(dst), true
	for _, line := range lines {
		for rest := skipEmpty(line); rest != ""; rest = skipEmpty(rest) {
			if n == maxRanked {
				return dst, false
			}
			m := &members[n]
			m.start = len(dst)
			if dst, rest, ok = appendRange(dst, rest, media); !ok {
				return dst, false
			}
			m.weightAt = len(dst)
			if m.weight, rest, ok = weight(rest); !ok || rest != "" && rest[0] != ',' {
				return dst, false
			}
			dst = append(appendWeight(dst, m.weight), ',')
			m.end = len(dst)
			ordered = ordered && (n == 0 || compareRanked(dst, members[n-1], *m, order) <= 0)
			n++
		}
	}
	if !ordered {
		dst = reorder(dst, at, members[:n], order)
	}
	return dst, true
}

// appendRange appends in lower case the token or media range that s begins with, with its parameters but the weight.
func appendRange(dst []byte, s string, media bool) (_ []byte, rest string, ok bool) {
	n := tokenLen(s)
	if n == 0 {
		return dst, s, false
	}
	if media {
		if n == len(s) || s[n] != '/' {
			return dst, s, false
		}
		sub := tokenLen(s[n+1:])
		if sub == 0 {
			return dst, s, false
		}
		n += 1 + sub
	}
	dst, s = appendLower(dst, s[:n]), s[n:]
	for media {
		after := skipSpace(s)
		if after == "" || after[0] != ';' {
			break
		}
		after = skipSpace(after[1:])
		n := tokenLen(after)
		if n == 0 || n == len(after) || after[n] != '=' {
			return dst, s, false
		}
		if n == 1 && after[0]|0x20 == 'q' { // the weight, which ends the member
			break
		}
		_, tail, ok := argument(after[n+1:])
		if !ok {
			return dst, s, false
		}
		dst = appendLower(append(dst, ';'), after[:n]) // the value of a parameter may depend on case (RFC 9110 §5.6.6)
		dst = append(dst, after[n:len(after)-len(tail)]...)
		s = tail
	}
	return dst, s, true
}

// weight splits a leading weight off s, in thousandths; none is 1 (RFC 9110 §12.4.2).
func weight(s string) (thousandths int, rest string, ok bool) {
	if s = skipSpace(s); s == "" || s[0] != ';' {
		return 1000, s, true
	}
	s = skipSpace(s[1:])
	if len(s) < 3 || s[0]|0x20 != 'q' || s[1] != '=' || s[2] != '0' && s[2] != '1' {
		return 0, s, false
	}
	thousandths = 1000 * int(s[2]-'0')
	s = s[3:]
	if s != "" && s[0] == '.' {
		s = s[1:]
		for unit := 100; unit > 0 && s != "" && '0' <= s[0] && s[0] <= '9'; unit /= 10 {
			thousandths += unit * int(s[0]-'0')
			s = s[1:]
		}
	}
	return thousandths, skipSpace(s), thousandths <= 1000
}

func appendWeight(dst []byte, thousandths int) []byte {
	if thousandths == 1000 {
		return dst
	}
	dst = append(dst, ";q=0"...)
	if thousandths > 0 {
		dst = append(dst, '.')
	}
	for unit := 100; thousandths > 0; unit /= 10 {
		dst = append(dst, byte('0'+thousandths/unit))
		thousandths %= unit
	}
	return dst
}

// compareRanked tells which of two members of dst comes first.
func compareRanked(dst []byte, a, b ranked, order bool) int {
	if a.weight != b.weight || order {
		return b.weight - a.weight
	}
	return bytes.Compare(dst[a.start:a.weightAt], dst[b.start:b.weightAt])
}

// reorder sorts the members, which begin at dst[at:], by weight. Where one is named twice it leaves them: a server may go by the first or the last.
func reorder(dst []byte, at int, members []ranked, order bool) []byte {
	for i, m := range members {
		for _, other := range members[:i] {
			if bytes.Equal(dst[m.start:m.weightAt], dst[other.start:other.weightAt]) {
				return dst
			}
		}
	}
	slices.SortStableFunc(members, func(a, b ranked) int { return compareRanked(dst, a, b, order) })
	end := len(dst)
	for _, m := range members {
		dst = append(dst, dst[m.start:m.end]...)
	}
	copy(dst[at:], dst[end:])
	return dst[:end]
}

func appendLower(dst []byte, s string) []byte {
	at := len(dst)
	dst = append(dst, s...)
	for i, c := range dst[at:] {
		if 'A' <= c && c <= 'Z' {
			dst[at+i] = c + 'a' - 'A'
		}
	}
	return dst
}

// skipEmpty returns s from its first member on (RFC 9110 §5.6.1.2).
func skipEmpty(s string) string {
	for s != "" && (isSpace(s[0]) || s[0] == ',') {
		s = s[1:]
	}
	return s
}

func skipSpace(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	return s
}

func trimSpace(s string) string {
	s = skipSpace(s)
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}
