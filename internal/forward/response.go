package forward

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Normalize makes what an upstream sent safe to read and to pass on, in place, and returns its size as Survey does. White space between
// a name and its colon is removed (RFC 9112 §5.1), and the field joins others of its name; a name that is no token is deleted, and so is
// a framing field under such a name, which the framing did not see. Control bytes in values become spaces (RFC 9110 §5.5).
func Normalize(h http.Header) (fields, bytes int) {
	for name := range h {
		if !canonical(name) {
			renameFields(h)
			break
		}
	}
	for name, values := range h {
		fields += len(values)
		for i, value := range values {
			bytes += len(name) + len(value) + len(": \r\n")
			if !cleanValue(value) {
				values[i] = cleaned(value)
			}
		}
	}
	return fields, bytes
}

// canonical reports whether name is a token in the form that net/http gives it.
func canonical(name string) bool {
	upper := true
	for i := range len(name) {
		c := name[i]
		if class[c]&isToken == 0 || upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
			return false
		}
		upper = c == '-'
	}
	return name != ""
}

// renameFields puts the fields of h under canonical names.
func renameFields(h http.Header) {
	var odd []string
	for name := range h {
		if !canonical(name) {
			odd = append(odd, name)
		}
	}
	slices.Sort(odd) // so that the order of merged values does not hang on the map's
	for _, name := range odd {
		values := h[name]
		delete(h, name)
		trimmed := strings.TrimRight(name, " \t")
		key := http.CanonicalHeaderKey(trimmed)
		switch {
		case !canonical(key):
		case trimmed != name && (key == "Content-Length" || key == "Transfer-Encoding"):
		default:
			h[key] = append(h[key][:len(h[key]):len(h[key])], values...)
		}
	}
}

// cleanValue reports whether a field value has no control byte but the tab.
func cleanValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// cleaned returns value with each control byte as a space, and none at its ends.
func cleaned(value string) string {
	b := []byte(value)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return trimOWS(string(b))
}

// cleanValues returns values clean and clipped; it copies them only if one is not clean.
func cleanValues(values []string) []string {
	if !slices.ContainsFunc(values, func(v string) bool { return !cleanValue(v) }) {
		return values[:len(values):len(values)]
	}
	clean := slices.Clone(values)
	for i, value := range clean {
		if !cleanValue(value) {
			clean[i] = cleaned(value)
		}
	}
	return clean
}

// StripHop removes from a response, in place, what is about the upstream connection: RFC 9110 §7.6.1, what Connection nominates, and
// Alt-Svc, which would lead the client around the gateway. Judge what a response allows (RFC 9111 §3) before: the nominated may be part of it.
func StripHop(h http.Header) {
	if lines := h["Connection"]; len(lines) > 0 {
		deleteNominated(h, lines)
	}
	for name := range h {
		if hop(name) {
			delete(h, name)
		}
	}
}

// ValidStatus reports whether code is a status code of RFC 9110 §15. net/http panics when it is to write one below 100.
func ValidStatus(code int) bool { return 100 <= code && code <= 599 }

// Move returns a link to one server as a link to another: with the scheme and host of to in place of those of from.
func Move(link string, from, to *url.URL) string {
	origin := from.Scheme + "://" + from.Host
	if len(link) < len(origin) || !strings.EqualFold(link[:len(origin)], origin) {
		return link
	}
	rest := link[len(origin):]
	if rest != "" && strings.IndexByte("/?#", rest[0]) < 0 {
		return link
	}
	return to.Scheme + "://" + to.Host + rest
}

// Locator turns links to an upstream into links to the gateway. It is immutable. Make it with NewLocator.
type Locator struct {
	scheme, name, port string // of the target, in lower case, the port never empty
	host               string // of the target, as written
	base               string // escaped, without a slash at its end
}

// NewLocator returns the Locator of a service with this target.
func NewLocator(target *url.URL) *Locator {
	l := &Locator{
		scheme: strings.ToLower(target.Scheme),
		host:   target.Host,
		base:   strings.TrimSuffix(target.EscapedPath(), "/"),
	}
	l.name, l.port = hostPort(target, l.scheme)
	return l
}

// Rewrite returns the form of a Location or Content-Location that a client of the gateway can follow, and whether it differs: an
// absolute URL of the upstream (the target's host, or sentHost, the Host that was sent to it), or a path, under the target's base
// path, becomes a path under prefix. What is under prefix already, because the upstream honoured X-Forwarded-Prefix, stays there. All
// else is left alone: other hosts, relative paths, what is malformed, and what would become a link to another host.
//
// A sentHost that is not the target's is the client's own name for the gateway; then a link that changes the scheme stays absolute.
func (l *Locator) Rewrite(location, sentHost, prefix string) (string, bool) {
	path, suffix, origin, ok := l.path(location, sentHost)
	if !ok || judgeLink(path) != nil {
		return location, false
	}
	if _, done := under(path, prefix); prefix == "" || !done {
		rest, ok := under(path, l.base)
		if !ok {
			return location, false
		}
		path = prefix + rest
	}
	if path == "" {
		path = "/"
	}
	if strings.HasPrefix(path, "//") || path[0] != '/' {
		return location, false // would name another host: CVE-2022-40083
	}
	rewritten := origin + path + suffix
	return rewritten, rewritten != location
}

// path takes a link to the upstream apart: its path, the query and fragment behind it, and the origin that a rewritten link must keep.
func (l *Locator) path(location, sentHost string) (path, suffix, origin string, ok bool) {
	if strings.IndexByte(location, ' ') >= 0 || !cleanValue(location) || strings.IndexByte(location, '\t') >= 0 {
		return "", "", "", false
	}
	u, err := url.Parse(location)
	if err != nil || u.Opaque != "" || u.User != nil {
		return "", "", "", false
	}
	start := 0
	if u.Scheme != "" {
		start = strings.Index(location, "://") + len("://")
		if u.Host == "" || !l.upstream(u, sentHost) {
			return "", "", "", false
		}
		if i := strings.IndexAny(location[start:], "/?#"); i >= 0 {
			start += i
		} else {
			start = len(location)
		}
		if u.Scheme != l.scheme {
			origin = location[:start]
		}
	} else if !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") {
		return "", "", "", false
	}
	path = location[start:]
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path, suffix = path[:i], path[i:]
	}
	return path, suffix, origin, true
}

// upstream reports whether an absolute URL names the upstream: the target, or the Host that stood in the request to it.
func (l *Locator) upstream(u *url.URL, sentHost string) bool {
	if u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	name, port := hostPort(u, u.Scheme)
	if u.Scheme == l.scheme && name == l.name && port == l.port {
		return true
	}
	if sentHost == "" || strings.EqualFold(sentHost, l.host) || !ValidHost(sentHost) {
		return false
	}
	sentName, sentPort := hostPort(&url.URL{Host: sentHost}, u.Scheme)
	return name == sentName && port == sentPort
}

// hostPort returns the host in lower case and the port, the scheme's if there is none.
func hostPort(u *url.URL, scheme string) (name, port string) {
	name, port = strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = "80"
		if scheme == "https" {
			port = "443"
		}
	}
	return name, port
}

// judgeLink is judgePath for a path that a browser will read: it takes a raw backslash for a slash.
func judgeLink(path string) error {
	if strings.IndexByte(path, '\\') >= 0 {
		return ErrBackslash
	}
	return judgePath(path)
}

// under returns what follows base in path, if path is base or below it.
func under(path, base string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, base)
	return rest, ok && (rest == "" || rest[0] == '/')
}
