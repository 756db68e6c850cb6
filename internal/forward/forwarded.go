package forward

import (
	"net/netip"
	"strings"
)

// Bounds on what a trusted peer may say of those before it.
const (
	maxChain      = 32
	maxChainBytes = 2 << 10
)

// forwardedBy is what we call ourselves in Forwarded: an obfuscated identifier (RFC 7239 §6.3), for our address is nobody's business.
func forwardedBy(pseudonym string) string { return "by=_" + pseudonym }

// forwardedList is Forwarded (RFC 7239 §4) for a request from peer: what a trusted peer has said, and what we have seen. A peer that
// has sent no Forwarded, but X-Forwarded-For, is understood all the same (§7.4). host and proto are where the request came in, as
// X-Forwarded-Host and -Proto tell it.
func (r *RequestRules) forwardedList(in *Inbound, peer netip.Addr, trusted bool, host, proto string) string {
	var b []byte
	if trusted {
		if lines := in.Header["Forwarded"]; len(lines) > 0 {
			if validForwarded(lines) {
				b = append(append(b, strings.Join(lines, ", ")...), ", "...)
				host, proto = in.Host, "http" // what it has seen itself stands there
				if in.TLS {
					proto = "https"
				}
			}
		} else if list, _ := r.chain(in.Header["X-Forwarded-For"], ""); list != "" {
			for more := true; more; {
				var member string
				member, list, more = cutMember(list)
				if addr, ok := parseAddr(member); ok {
					b = appendNode(append(b, "for="...), addr)
					b = append(appendSite(b, host, proto), ", "...)
					host, proto = "", "" // which is about the first
				}
			}
		}
	}
	b = appendNode(append(b, "for="...), peer)
	b = appendSite(b, host, proto)
	return string(append(append(b, ';'), forwardedBy(r.pseudonym)...))
}

// appendNode appends a node's name (RFC 7239 §6): an IPv6 address in brackets and quotes (§6.1), who has none as unknown (§6.2). Its
// port is left out: it says no more than the connection.
func appendNode(b []byte, addr netip.Addr) []byte {
	switch {
	case !addr.IsValid():
		return append(b, "unknown"...)
	case addr.Is4():
		return addr.AppendTo(b)
	}
	return append(addr.AppendTo(append(b, `"[`...)), `]"`...)
}

// appendSite appends the host and the protocol (RFC 7239 §5.3, §5.4). A host that is none is left out; one with a port or an IPv6
// address is no token, and quoted (§4).
func appendSite(b []byte, host, proto string) []byte {
	if ValidHost(host) {
		b = append(b, ";host="...)
		if only(host, isToken) {
			b = append(b, host...)
		} else {
			b = append(append(append(b, '"'), host...), '"') // ValidHost allows nothing to escape
		}
	}
	if proto != "" {
		b = append(append(b, ";proto="...), proto...)
	}
	return b
}

// validForwarded reports whether lines are a Forwarded that may be continued: elements by the grammar (RFC 7239 §4), in each no
// parameter twice, and no more than we pass on of X-Forwarded-For.
func validForwarded(lines []string) bool {
	size, elements := 0, 0
	for _, line := range lines {
		if size += len(line); size > maxChainBytes {
			return false
		}
		for more := true; more; {
			var ok bool
			if line, more, ok = cutElement(line); !ok {
				return false
			}
			if elements++; elements > maxChain {
				return false
			}
		}
	}
	return elements > 0
}

// cutElement takes one element, and the comma behind it, off a line.
func cutElement(s string) (rest string, more, ok bool) {
	var names []string
	s = strings.TrimLeft(s, " \t")
	for {
		name, after, found := strings.Cut(s, "=")
		if !found || name == "" || !only(name, isToken) {
			return "", false, false
		}
		for _, had := range names {
			if strings.EqualFold(had, name) { // RFC 7239 §4: not more than once for each element
				return "", false, false
			}
		}
		names = append(names, name)
		if s, ok = cutValue(after); !ok {
			return "", false, false
		}
		if s != "" && s[0] == ';' {
			s = s[1:]
			continue
		}
		switch s = strings.TrimLeft(s, " \t"); {
		case s == "":
			return "", false, true
		case s[0] == ',':
			return s[1:], true, true
		}
		return "", false, false
	}
}

// cutValue takes a token or a quoted-string (RFC 9110 §5.6.4) off s.
func cutValue(s string) (rest string, ok bool) {
	if s == "" || s[0] != '"' {
		n := 0
		for n < len(s) && class[s[n]]&isToken != 0 {
			n++
		}
		return s[n:], n > 0
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[i+1:], i > 1
		case c == '\\':
			if i++; i == len(s) || class[s[i]]&isVisible == 0 && s[i] != ' ' && s[i] != '\t' {
				return "", false
			}
		case class[c]&isVisible == 0 && c != ' ' && c != '\t':
			return "", false
		}
	}
	return "", false
}
