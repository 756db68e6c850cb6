package telemetry

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Route returns the request's http.route, "" where no template is known.
func (sv *Server) Route() string {
	if sv.route == nil {
		return ""
	}
	return sv.route.template
}

// Method returns the request's http.request.method, which of a method that the
// conventions do not know is "_OTHER".
func (sv *Server) Method() string { return sv.method.attribute().Value.AsString() }

// Recording reports whether there is a span that is recorded.
func (sv *Server) Recording() bool { return sv.span != nil && sv.span.IsRecording() }

// TraceID returns the id of the request's trace for log lines, "" if it has
// none. Without a tracer it is the client's.
func (sv *Server) TraceID() string {
	if c := sv.spanContext(); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

// SpanID is TraceID of the span. Without a tracer it is the client's.
func (sv *Server) SpanID() string {
	if c := sv.spanContext(); c.HasSpanID() {
		return c.SpanID().String()
	}
	return ""
}

func (sv *Server) spanContext() trace.SpanContext {
	if sv.ctx == nil {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(sv.ctx)
}

// Redact returns a text that somebody else wrote, such as an error's, without
// what may be a credential: the secrets that are given, in it as they are, or as
// %q or a URL has them; userinfo and sensitive parameters of URLs; and what follows
// the name of an authentication scheme, or of a field or parameter that holds
// credentials.
// With more secrets than anybody has there is nothing left of it.
func Redact(s string, secrets ...string) string {
	if len(secrets) > maxSecrets {
		return redacted
	}
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // one may hold another
	for _, secret := range secrets {
		if len(secret) < leastSecret {
			continue
		}
		s = strings.ReplaceAll(s, secret, redacted)
		quoted := strconv.Quote(secret)
		for _, other := range [...]string{quoted[1 : len(quoted)-1], url.QueryEscape(secret), url.PathEscape(secret)} {
			if other != secret {
				s = strings.ReplaceAll(s, other, redacted)
			}
		}
	}
	s = s[:min(len(s), maxRedact)] // not before: of a secret that is cut nobody would know
	s = redactUserinfo(s)
	return redactValues(s)
}

// Secrets returns what a request identifies its sender by, for Redact: the values of
// Cookie, of the fields that tell by their names that they hold credentials, and of
// such parameters of its query; each as it is, and as who reads it has it.
func Secrets(h http.Header, query string) (all []string) {
	for name, values := range h {
		var short [32]byte
		switch folded := string(fold(short[:0], name)); {
		case folded == "cookie":
			all = cookies(all, values)
		case telling(folded):
			all = Credentials(all, values)
		}
	}
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, value, _ := strings.Cut(pair, "=")
		if !sensitive(key) {
			continue
		}
		all = append(all, value)
		if plain, err := url.QueryUnescape(value); err == nil {
			all = append(all, plain)
		}
	}
	return all
}

// cookies appends the values of cookies, without the quotes that they may be in
// (RFC 6265 §4.1.1).
func cookies(all, lines []string) []string {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			_, value, _ := strings.Cut(pair, "=")
			all = append(all, strings.Trim(value, " \t\""))
		}
	}
	return all
}

// Credentials appends values of fields, each as it is and without the name of its
// scheme; of Basic what that is in plain (RFC 7617), and the password alone.
func Credentials(all, values []string) []string {
	for _, v := range values {
		all = append(all, v)
		scheme, secret, ok := strings.Cut(v, " ")
		if !ok {
			continue
		}
		secret = strings.TrimSpace(secret)
		all = append(all, secret)
		if plain, err := base64.StdEncoding.DecodeString(secret); err == nil && strings.EqualFold(scheme, "basic") {
			_, password, _ := strings.Cut(string(plain), ":")
			all = append(all, string(plain), password)
		}
	}
	return all
}

// maxRedact is how much of a text is looked at for what may be a credential; the
// rest is dropped.
const maxRedact = 8 << 10

// maxSecrets is how many are looked for.
const maxSecrets = 1000

// leastSecret is how long a secret has to be to be looked for: shorter ones are
// in many words.
const leastSecret = 4

// redactUserinfo redacts what stands before the host of each URL in s.
func redactUserinfo(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "://")
		if !found {
			break
		}
		b.WriteString(before)
		b.WriteString("://")
		end := strings.IndexAny(after, "/?# \t\r\n\"'<>")
		if end < 0 {
			end = len(after)
		}
		if at := strings.LastIndexByte(after[:end], '@'); at >= 0 {
			b.WriteString(redacted)
			after = after[at:]
		}
		s = after
	}
	if b.Len() == 0 {
		return s
	}
	b.WriteString(s)
	return b.String()
}

// redactValues redacts the word, or the quoted text, behind each name that tells
// of credentials: "Bearer x", "token=x", "Cookie: x; y".
func redactValues(s string) string {
	var b strings.Builder
	done := 0 // s[:done] is in b
	for i := 0; i < len(s); {
		if !isWord(s[i]) {
			i++
			continue
		}
		end := i
		for end < len(s) && isWord(s[end]) {
			end++
		}
		from, to := valueOf(s, s[i:end], end)
		if to > max(from, done) {
			if from >= done { // else it goes on from one that is redacted, which holds a name itself
				b.WriteString(s[done:from])
				b.WriteString(redacted)
			}
			done = to
		}
		i = end
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// valueOf returns where the credentials are that word, which ends at end, tells
// of: nowhere, where from is to.
func valueOf(s, word string, end int) (from, to int) {
	switch strings.ToLower(word) {
	case "bearer", "basic", "digest", "negotiate":
		from = skip(s, end, " ")
		if from == end {
			return 0, 0
		}
		return from, wordEnd(s, from)
	case "cookie", "set-cookie", "authorization", "proxy-authorization":
		from = skip(s, end, " :=\"'[")
		if from == end {
			return 0, 0
		}
		to = len(s)
		if n := strings.IndexAny(s[from:], "\r\n\"']"); n >= 0 {
			to = from + n
		}
		return from, to
	}
	var short [32]byte
	at := skip(s, end, "\"'")
	switch {
	case at == len(s):
		return 0, 0
	case s[at] == '=' && sensitive(word), s[at] == ':' && telling(string(fold(short[:0], word))):
		from = skip(s, at, "=: \"'[")
		return from, wordEnd(s, from)
	}
	return 0, 0
}

func isWord(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '%' || c == '.'
}

// skip returns the first place from at on that holds none of chars.
func skip(s string, at int, chars string) int {
	for at < len(s) && strings.IndexByte(chars, s[at]) >= 0 {
		at++
	}
	return at
}

func wordEnd(s string, at int) int {
	if n := strings.IndexAny(s[at:], " \t\r\n\"'&;,)]}<>"); n >= 0 {
		return at + n
	}
	return len(s)
}
