package forward

import (
	"bytes"
	"net/http"
	"strings"
)

// hop reports whether a response's field is about one connection: RFC 9110 §7.6.1, those that were never registered but act so, and
// Alt-Svc, which would lead the client around the gateway.
func hop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Proxy", "Alt-Svc":
		return true
	}
	return false
}

// A verdict says what becomes of a client's field.
type verdict uint8

const (
	free    verdict = iota
	dropped         // never passes as it is
	guarded         // passes, but not under a name that a server may take for this one
	claimed         // guarded, and only from a trusted peer: says who the client is
	baggage         // guarded, and only when asked for
)

// rule returns what becomes of fields whose folded name this is.
func rule(folded []byte) verdict {
	switch string(folded) {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
		"proxy", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization", // RFC 9110 §7.6.1, §11.7; CVE-2016-5386
		"content-length", "host", "expect", "via", // set by us or by who sends the request
		"forwarded", "x-real-ip", // RFC 7239
		"x-http-method", "x-http-method-override", "x-method-override", // would be another method than the one we judged
		"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host", "x-host", "x-http-host-override": // another target
		return dropped
	case "client-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "x-originating-ip", "x-remote-ip", "x-remote-addr":
		return claimed
	case "authorization", "cookie", "x-auth-token", "origin", "content-type", "content-encoding", "traceparent", "tracestate":
		return guarded
	case "baggage":
		return baggage
	}
	if bytes.HasPrefix(folded, []byte("x-forwarded")) {
		return dropped
	}
	return free
}

// Managed reports whether a field is never the app's to set: it belongs to the connection, or is set by what forwards the request.
func Managed(name string) bool { return rule(fold(nil, name)) == dropped }

// fold appends to dst the name as the most careless server would read it: CGI and its heirs know neither case nor one punctuation
// mark from another, and some cut off those at the ends.
func fold(dst []byte, name string) []byte {
	start, end := 0, len(name)
	for start < end && class[name[start]]&isAlnum == 0 {
		start++
	}
	for start < end && class[name[end-1]]&isAlnum == 0 {
		end--
	}
	for i := start; i < end; i++ {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case class[c]&isAlnum == 0:
			c = '-'
		}
		dst = append(dst, c)
	}
	return dst
}

// exact reports whether folding changed nothing but case.
func exact(name string, folded []byte) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		if folded[i] == '-' && name[i] != '-' {
			return false
		}
	}
	return true
}

// nameSet is a set of folded names. Its zero value is empty.
type nameSet struct {
	names   map[string]struct{}
	lengths uint64 // a bit for each length modulo 64 that is there
}

func (s *nameSet) add(name string) {
	folded := fold(nil, name)
	if len(folded) == 0 {
		return
	}
	if s.names == nil {
		s.names = make(map[string]struct{})
	}
	s.names[string(folded)] = struct{}{}
	s.lengths |= 1 << (len(folded) & 63)
}

func (s *nameSet) has(folded []byte) bool {
	if s.lengths>>(len(folded)&63)&1 == 0 {
		return false
	}
	_, ok := s.names[string(folded)]
	return ok
}

// deleteNominated removes from h what the lines of a Connection field nominate, RFC 9110 §7.6.1.
func deleteNominated(h http.Header, lines []string) {
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			switch {
			case member == "", strings.EqualFold(member, "keep-alive"), strings.EqualFold(member, "close"):
			default:
				delete(h, member)
				delete(h, http.CanonicalHeaderKey(member))
			}
		}
	}
}

// Withholds reports whether Connection keeps a field that a request has from the upstream, which would have received it otherwise.
func Withholds(h http.Header) bool {
	for _, line := range h["Connection"] {
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			name := http.CanonicalHeaderKey(member)
			if h[name] != nil && !Managed(name) {
				return true
			}
		}
	}
	return false
}

// ForbiddenTrailer reports whether a field may not come as a trailer: what frames, routes, authenticates, modifies the request, controls
// the response or describes the content (RFC 9110 §6.5.1), whatever a gateway manages itself, and what is no field name.
func ForbiddenTrailer(name string) bool {
	if name == "" || !only(name, isToken) {
		return true
	}
	var buf [64]byte
	folded := fold(buf[:0], name)
	if rule(folded) != free {
		return true
	}
	switch string(folded) {
	case "cache-control", "max-forwards", "pragma", "range", // request modifiers
		"www-authenticate", "authentication-info", "realm", "set-cookie", "set-cookie2", // authentication
		"age", "alt-svc", "clear-site-data", "date", "expires", "location", "refresh", "retry-after", "vary", "warning", // response control
		"content-disposition", "content-language", "content-location", "content-range": // content
		return true
	}
	return bytes.HasPrefix(folded, []byte("if-")) || bytes.HasPrefix(folded, []byte("access-control-"))
}

// Trailers returns the fields of a response's trailer section that may pass, their values clean, or nil if there are none.
func Trailers(t http.Header) http.Header { return trailers(t, nameSet{}) }

// Trailers is the function Trailers for a client's trailer section: no field that the rules manage passes in it either.
func (r *RequestRules) Trailers(t http.Header) http.Header { return trailers(t, r.managed) }

func trailers(t http.Header, managed nameSet) http.Header {
	var out http.Header
	for name, values := range t {
		var buf [64]byte
		if ForbiddenTrailer(name) || managed.has(fold(buf[:0], name)) {
			continue
		}
		if out == nil {
			out = make(http.Header, len(t))
		}
		out[name] = cleanValues(values)
	}
	return out
}
