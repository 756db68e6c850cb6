package rfc9111

import (
	"cmp"
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Key is what a primary cache key says (RFC 9111 §2). All that an upstream is told of where the request came in is a part of it: its answer may
// repeat that. A key may go on with what KeyRules append, which tells it from others and says no more.
type Key struct {
	Scope    string // whose resource it is: the name of a service, or of handlers
	Target   string // KeyTarget, of the path below the scope
	Query    string // what of it tells requests apart
	Upstream string // tells apart services of one name that would give other answers
	Proto    string // where the request came in, as the upstream is told
	Host     string // the same
	Asked    string // the Host that the client sent
	Prefix   string // what of the path was cut off
}

// Append appends the key and returns the extended slice. Keys are equal exactly when what they say is; nothing is normalised. One ends where its own
// lengths say, so what is appended to it cannot turn it into another.
func (k *Key) Append(dst []byte) []byte {
	dst = appendString(dst, k.Scope)
	dst = appendString(dst, k.Target)
	dst = appendString(dst, k.Query)
	dst = appendString(dst, k.Upstream)
	dst = appendString(dst, k.Proto)
	dst = appendString(dst, k.Host)
	dst = appendString(dst, k.Asked)
	return appendString(dst, k.Prefix)
}

// ParseKey returns what a key says, by parts of it.
func ParseKey(key string) (k Key) {
	k.Scope, key = cutKey(key)
	k.Target, key = cutKey(key)
	k.Query, key = cutKey(key)
	k.Upstream, key = cutKey(key)
	k.Proto, key = cutKey(key)
	k.Host, key = cutKey(key)
	k.Asked, key = cutKey(key)
	k.Prefix, _ = cutKey(key)
	return k
}

// KeyScope returns the scope of a key.
func KeyScope(key string) string {
	scope, _ := cutKey(key)
	return scope
}

// SameOrigin reports whether both requests came in at one origin (RFC 9110 §4.3.1).
func (k *Key) SameOrigin(other *Key) bool {
	return k.Proto == other.Proto && (strings.EqualFold(k.Host, other.Host) || // also where a request of HTTP/1.0 had none
		sameOrigin(&url.URL{Scheme: k.Proto, Host: k.Host}, &url.URL{Scheme: other.Proto, Host: other.Host}))
}

// KeyTarget returns an escaped path as a key has it: one with a query that is empty, but there, is another's, and no path has a question mark.
func KeyTarget(path string, emptyQuery bool) string {
	if emptyQuery {
		path += "?"
	}
	return path
}

// ParseTarget returns the target and query of a URI as operators write it: a path below a scope, with its query. What is none is all target.
func ParseTarget(uri string) (target, query string) {
	u, err := url.ParseRequestURI(uri) // which takes no host out of //
	if err != nil {
		return uri, ""
	}
	return KeyTarget(cmp.Or(u.EscapedPath(), "/"), u.ForceQuery), u.RawQuery
}

// KeyRules are what an operator says of which requests are for the same. The zero value says nothing.
type KeyRules struct {
	IgnoredQuery []string // query parameters that tell nothing apart
	SortedQuery  bool     // nor does the order of different ones

	Fields    []string                   // request fields that do, beside those of Vary, canonical
	Cookies   []string                   // cookies that do
	Partition func(*http.Request) string // nil: there is one part
}

// Query returns what of a query tells requests apart.
func (r *KeyRules) Query(query string) string { return KeyQuery(query, r.IgnoredQuery, r.SortedQuery) }

// RulesQuery reports whether Query may change one.
func (r *KeyRules) RulesQuery() bool { return len(r.IgnoredQuery) > 0 || r.SortedQuery }

// SameQuery reports whether Query does the same by both.
func (r *KeyRules) SameQuery(other *KeyRules) bool {
	return r.SortedQuery == other.SortedQuery && slices.Equal(r.IgnoredQuery, other.IgnoredQuery)
}

// Extends reports whether Append appends something.
func (r *KeyRules) Extends() bool {
	return len(r.Fields) > 0 || len(r.Cookies) > 0 || r.Partition != nil
}

// Append appends to the key of a request what tells it from others beside its target, and returns the extended slice.
func (r *KeyRules) Append(dst []byte, request *http.Request) []byte {
	if !r.Extends() {
		return dst
	}
	dst = AppendVariant(dst, r.Fields, request.Header)
	dst = AppendCookies(dst, r.Cookies, request.Header["Cookie"])
	if r.Partition != nil {
		dst = appendString(dst, r.Partition(request))
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

// cutKey splits the first part off a key, or off the rest of one. What is no key
// is all rest.
func cutKey(key string) (part, rest string) {
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
