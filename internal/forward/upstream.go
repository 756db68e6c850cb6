package forward

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// SchemeUnix is the scheme of an upstream that is a socket of this machine.
const SchemeUnix = "unix"

// ParseUpstream reads the URL of an upstream as an app gives it. It is shown without credentials, and not at all where they cannot be told from
// the rest. The reasons say what is wrong with it, and are none of the URL's own text.
func ParseUpstream(target string) (u *url.URL, shown string, reasons []string) {
	if target == "" {
		return nil, "", []string{"the URL is empty"}
	}
	if target[0] == '/' {
		if !strings.ContainsAny(target, "@?#") {
			shown = target
		}
		return nil, shown, []string{"http:// or https:// and a host are missing, or unix:// in front of the path of a socket"}
	}
	if shown = withoutScheme(target); shown != "" {
		return nil, shown, []string{"http:// or https:// is missing in front of the host"}
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, "", []string{"not a URL" + unparsed(target)}
	}
	_, _, pathErr := Judge(&url.URL{Path: u.Path, RawPath: u.RawPath})
	socket := u.Scheme == SchemeUnix
	for _, rule := range []struct {
		broken bool
		reason string
	}{
		{u.User != nil, "userinfo in the URL; use WithBearerToken or WithHeader"},
		{u.Scheme != "http" && u.Scheme != "https" && !socket, "the scheme is none of http, https and unix" + meant(u.Scheme)},
		{!socket && u.Hostname() == "", "the URL has no host"},
		{!socket && u.Hostname() != "" && !validHostname(u.Hostname()), "the host is neither a name nor an address (outside ASCII: in its xn-- form)"},
		{socket && (u.Host != "" || u.Path == "" || strings.HasSuffix(u.Path, "/") || u.Opaque != ""), "not unix:/// and the path of a socket"},
		{u.RawQuery != "" || u.ForceQuery || strings.Contains(target, "#"), "the URL has a query or fragment; WithRewrite can set a query"},
		{!validPort(u), "the port is not between 1 and 65535"},
		{pathErr != nil, "the path has a dot segment, a backslash or a NUL"},
	} {
		if rule.broken {
			reasons = append(reasons, rule.reason)
		}
	}
	return u, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), reasons
}

// withoutScheme returns a target that is a host, maybe with a port and a path, and would be a URL if it said of which scheme; else "".
func withoutScheme(target string) string {
	u, err := url.Parse(target)
	if err == nil && (u.Host != "" || u.Scheme == "http" || u.Scheme == "https" || u.Scheme == SchemeUnix) {
		return ""
	}
	u, err = url.Parse("http://" + target)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !validPort(u) {
		return ""
	}
	return u.Host + u.Path
}

// meant says what stands in the place of a scheme that names a protocol over HTTP.
func meant(scheme string) string {
	switch scheme {
	case "ws", "wss":
		return "; WebSocket begins with http or https"
	case "grpc", "grpcs", "h2", "h2c":
		return "; HTTP/2 and gRPC are http or https and WithHTTP2"
	}
	return ""
}

// unparsed says why net/url does not take a target, in none of its words, for there may be a password among them.
func unparsed(target string) string {
	_, authority, _ := strings.Cut(target, "://")
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	_, port, _ := strings.Cut(authority, ":")
	switch {
	case strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return ": it has white space or control characters"
	case strings.ContainsAny(authority, "{}<>\"`^|\\"):
		return ": its host has characters that none has, as a variable that was not replaced"
	case strings.ContainsAny(authority, "[]"), strings.Contains(port, ":"):
		return ": an IPv6 address, and nothing else, stands in brackets"
	case strings.Trim(port, "0123456789") != "":
		return ": its port is not a number"
	}
	if _, err := url.PathUnescape(target); err != nil {
		return ": it has a % without two hexadecimal digits"
	}
	return ""
}

// validHostname reports whether a URL's host can stand in a request (RFC 9110 §7.2), and be asked for.
func validHostname(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return !strings.Contains(name, ":") && ValidHost(name)
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.Atoi(u.Port())
	return err == nil && 0 < n && n < 1<<16
}
