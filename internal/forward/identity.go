package forward

import (
	"net/http"
	"net/netip"
	"strings"
)

// forwarded sets who asked, and through whom. What the request says of itself counts only when a trusted peer says it.
func (o *outbound) forwarded(r *RequestRules, in *Inbound, peer netip.Addr, trusted bool) {
	if peer.IsValid() {
		address := canonicalAddr(in.RemoteAddr, peer)
		list, client := address, address
		if trusted {
			list, client = r.chain(in.Header["X-Forwarded-For"], address)
		}
		o.put("X-Forwarded-For", list)
		o.put("X-Real-Ip", client)
	}
	host, proto, prefix := site(in, trusted)
	if ValidHost(host) {
		o.put("X-Forwarded-Host", host)
	}
	o.put("X-Forwarded-Proto", proto)
	if r.forwarded {
		o.put("Forwarded", r.forwardedList(in, peer, trusted, host, proto))
	}
	if prefix != "" {
		o.put("X-Forwarded-Prefix", prefix)
	}
	if r.pseudonym != "" { // RFC 9110 §7.6.3: a gateway MUST send Via
		via := r.received(in.ProtoMajor, in.ProtoMinor)
		if lines := in.Header["Via"]; len(lines) > 0 {
			via = strings.Join(lines, ", ") + ", " + via
		}
		o.put("Via", via)
	}
}

// Client returns the address of who asked, behind the peers that are trusted; "" where it has none. Of in it looks at Header and RemoteAddr.
func (r *RequestRules) Client(in *Inbound) string {
	peer, known := parseAddr(in.RemoteAddr)
	if !known {
		return ""
	}
	address := canonicalAddr(in.RemoteAddr, peer)
	if r.trusts(peer) {
		_, address = r.chain(in.Header["X-Forwarded-For"], address)
	}
	return address
}

// Site returns where a request came in, as the upstream is told: by X-Forwarded-Host, -Proto and -Prefix. What it answers may repeat that.
func (r *RequestRules) Site(in *Inbound) (host, proto, prefix string) {
	if len(r.trusted) == 0 {
		return site(in, false)
	}
	peer, known := parseAddr(in.RemoteAddr)
	return site(in, known && r.trusts(peer))
}

func site(in *Inbound, trusted bool) (host, proto, prefix string) {
	host, proto, prefix = in.Host, "http", in.Prefix
	if in.TLS {
		proto = "https"
	}
	if !trusted {
		return host, proto, prefix
	}
	if theirs := single(in.Header["X-Forwarded-Host"]); ValidHost(theirs) {
		host = theirs
	}
	if theirs := strings.ToLower(single(in.Header["X-Forwarded-Proto"])); theirs == "http" || theirs == "https" {
		proto = theirs
	}
	if theirs := strings.TrimRight(single(in.Header["X-Forwarded-Prefix"]), "/"); validPrefix(theirs) {
		prefix = theirs + prefix
	}
	return host, proto, prefix
}

// Looping reports whether a request has been here too often.
func (r *RequestRules) Looping(h http.Header) bool { return r.Hops(h) > r.maxHops }

// Hops returns how often a request has been here. Comments in Via are not told from members: an unclosed one would hide every member
// after it, ours too.
func (r *RequestRules) Hops(h http.Header) (hops int) {
	lines := h["Via"]
	if len(lines) == 0 || r.pseudonym == "" {
		return 0
	}
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			if i := strings.IndexAny(member, " \t"); i >= 0 { // received-protocol RWS received-by, RFC 9110 §7.6.3
				by := trimOWS(member[i:])
				if i := strings.IndexAny(by, " \t("); i >= 0 {
					by = by[:i]
				}
				if strings.EqualFold(by, r.pseudonym) {
					hops++
				}
			}
		}
	}
	return hops
}

// received returns our Via member for a request received in this version of HTTP.
func (r *RequestRules) received(major, minor int) string {
	switch {
	case major == 1 && minor == 0:
		return r.via[0]
	case major == 2 || major == 3:
		return r.via[major]
	}
	return r.via[1]
}

// chain appends the address of a trusted peer to the X-Forwarded-For that it sent, and names the client: the first address from the
// right that is not trusted. Without an address nothing is appended. A list that is not one of addresses, or too long, is forgotten.
func (r *RequestRules) chain(lines []string, address string) (list, client string) {
	var first netip.Addr
	entries, size := 0, 0
	for _, line := range lines {
		if size += len(line); size > maxChainBytes {
			return address, address
		}
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			addr, ok := parseAddr(member)
			if entries++; !ok || entries > maxChain || strings.Contains(member, "%") {
				return address, address
			}
			if !first.IsValid() || !r.trusts(addr) {
				first = addr
			}
		}
	}
	if entries == 0 {
		return address, address
	}
	if address == "" {
		return strings.Join(lines, ", "), first.String()
	}
	return strings.Join(lines, ", ") + ", " + address, first.String()
}

func (r *RequestRules) trusts(addr netip.Addr) bool {
	for _, prefix := range r.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// parseAddr reads an address with or without a port. What a prefix is compared with has no zone and is not IPv4 in IPv6's clothes.
func parseAddr(s string) (netip.Addr, bool) {
	var addr netip.Addr
	var err error
	switch {
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		addr, err = netip.ParseAddr(s[1 : len(s)-1])
	case strings.HasPrefix(s, "["), strings.Count(s, ":") == 1:
		var both netip.AddrPort
		both, err = netip.ParseAddrPort(s)
		addr = both.Addr()
	default:
		addr, err = netip.ParseAddr(s)
	}
	return addr.Unmap().WithZone(""), err == nil
}

// canonicalAddr is the text of addr, which was read from s. Of IPv4 there is but one, and it begins s.
func canonicalAddr(s string, addr netip.Addr) string {
	if text, _, ok := strings.Cut(s, ":"); ok && addr.Is4() && text != "" && text[0] != '[' {
		return text
	}
	return addr.String()
}

// ValidHost reports whether host, with or without a port, is a name or an address and nothing else: RFC 9110 §7.2 without what
// RFC 3986 §3.2.2 allows beyond host names, such as the comma of two Host fields in one.
func ValidHost(host string) bool {
	const maxHostBytes = 255
	name, port, hasPort := host, "", false
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port, hasPort = host[:i], host[i+1:], true
	}
	if hasPort && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return false
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		addr, err := netip.ParseAddr(name[1 : len(name)-1])
		return err == nil && addr.Is6() && addr.Zone() == ""
	}
	return name != "" && len(name) <= maxHostBytes && only(name, isName)
}

// single returns the only value of a field, or "".
func single(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}
