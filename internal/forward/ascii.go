package forward

import "strings"

// class holds what each byte may be. It is written once, here.
var class = func() (t [256]uint8) {
	const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	mark := func(bit uint8, bytes string) {
		for i := range len(bytes) {
			t[bytes[i]] |= bit
		}
	}
	mark(isAlnum, alnum)
	mark(isToken, alnum+"!#$%&'*+-.^_`|~")
	mark(isPlain, alnum+"-._~$&+,/:=@")
	mark(isPath, alnum+"-._~!$&'()*+,;=:@/%[]")
	mark(isName, alnum+"-._~")
	mark(isID, alnum+"-._~:/+=@")
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= isVisible
	}
	return t
}()

const (
	isAlnum   uint8 = 1 << iota
	isToken         // RFC 9110 §5.6.2
	isPlain         // in a path: written as itself by net/url, and of no meaning to anyone
	isPath          // in an escaped path: RFC 3986 §3.3, and the brackets that net/url leaves alone
	isName          // in a host name
	isID            // in a request id
	isVisible       // VCHAR, RFC 5234 §B.1
)

// only reports whether every byte of s is of one of the classes in mask.
func only(s string, mask uint8) bool {
	for i := range len(s) {
		if class[s[i]]&mask == 0 {
			return false
		}
	}
	return true
}

// encode writes each byte of s that is of none of the classes in mask as %XX.
func encode(s string, mask uint8) string {
	if only(s, mask) {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 32)
	for i := range len(s) {
		if c := s[i]; class[c]&mask != 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// trimOWS trims optional white space, RFC 9110 §5.6.3.
func trimOWS(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// cutMember cuts the first member off a comma-separated list, RFC 9110 §5.6.1. It does not know quoted strings: no list here has any.
func cutMember(list string) (member, rest string, more bool) {
	member, rest, more = strings.Cut(list, ",")
	return trimOWS(member), rest, more
}

// IsToken reports whether s is a token, as names of fields and methods are (RFC 9110 §5.6.2).
func IsToken(s string) bool { return s != "" && only(s, isToken) }

// hasMember reports whether the list field with these lines has the member token, in any case.
func hasMember(lines []string, token string) bool {
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			if strings.EqualFold(member, token) {
				return true
			}
		}
	}
	return false
}
