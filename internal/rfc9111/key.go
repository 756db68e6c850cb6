package rfc9111

import (
	"encoding/binary"
	"strings"
)

// AppendKey appends the primary cache key of a target (RFC 9111 §2) and returns the extended slice. Its parts say what is asked for: a scope,
// a host, a path, a query. Keys are equal exactly when their parts are; nothing is normalised. A key ends where its own lengths say, so what is
// appended to it cannot turn it into another.
func AppendKey(dst []byte, parts ...string) []byte {
	for _, part := range parts {
		dst = appendString(dst, part)
	}
	return dst
}

// AppendCookies appends what the Cookie lines of a request say of the cookies with these names (RFC 6265 §4.2.1): each time that one occurs, as it
// came, for of several values of one name, and of a value that breaks the grammar, each server makes what it likes. It returns the extended slice.
func AppendCookies(dst []byte, names, lines []string) []byte {
	for _, name := range names {
		for _, line := range lines {
			for pair := range strings.SplitSeq(line, ";") {
				if pair = trimSpace(pair); cookieName(pair) == name {
					dst = appendString(dst, pair)
				}
			}
		}
		dst = appendString(dst, "") // which no pair is
	}
	return dst
}

func cookieName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return trimSpace(name)
}

// CutKey splits the first part off a key, or off the rest of one. What is no key
// is all rest.
func CutKey(key string) (part, rest string) {
	var prefix [binary.MaxVarintLen64]byte
	n, used := binary.Uvarint(prefix[:copy(prefix[:], key)])
	if used <= 0 || n > uint64(len(key)-used) {
		return "", key
	}
	return key[used : used+int(n)], key[used+int(n):]
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
