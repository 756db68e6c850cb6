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
	if encoded(response) {
		names = append(names, "Accept-Encoding")
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

func encoded(response http.Header) bool {
	for _, line := range response["Content-Encoding"] {
		if strings.Trim(line, " \t,") != "" {
			return true
		}
	}
	return false
}

// AppendVariant appends the secondary cache key (RFC 9111 §4.1) of request under the names of ParseVary and returns the extended slice. Keys are
// equal exactly when the names are and each field has the same value: its lines joined by ", " and without white space at their ends. An absent
// field equals only an absent one.
func AppendVariant(dst []byte, names []string, request http.Header) []byte {
	for _, name := range names {
		dst = appendField(appendString(dst, name), request[name])
	}
	return dst
}

func appendField(dst []byte, lines []string) []byte {
	if len(lines) == 0 {
		return append(dst, 0)
	}
	size := len(", ") * (len(lines) - 1)
	for _, line := range lines {
		size += len(textproto.TrimString(line))
	}
	dst = binary.AppendUvarint(dst, uint64(size)+1)
	for i, line := range lines {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, textproto.TrimString(line)...)
	}
	return dst
}

// MatchVariant reports whether request selects the response that was stored with the secondary key stored, made by AppendVariant with the same
// names. It allocates only for keys above 256 bytes.
func MatchVariant(stored []byte, names []string, request http.Header) bool {
	if len(names) == 0 {
		return len(stored) == 0
	}
	var scratch [256]byte
	return bytes.Equal(stored, AppendVariant(scratch[:0], names, request))
}
