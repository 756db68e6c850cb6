package roundtrip

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// take takes resp as the final response.
func (x *Exchange) take(resp *http.Response) error {
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	if resp.Header == nil {
		resp.Header = make(http.Header)
	}
	x.mu.Lock()
	x.answered, x.response = true, resp
	cause := x.aborted
	x.mu.Unlock()
	if cause != nil {
		return cause
	}
	x.Status, x.Header, x.ContentLength, x.Proto, x.Trailers = resp.StatusCode, resp.Header, resp.ContentLength, resp.Proto, resp.Trailer
	x.Framed = resp.ContentLength >= 0 || resp.ProtoMajor >= 2 && !resp.Close || slices.Contains(resp.TransferEncoding, "chunked")
	bodiless := x.Method == http.MethodHead || x.Status == http.StatusNoContent || x.Status == http.StatusNotModified
	if err := x.measure(bodiless); err != nil {
		return err
	}
	switch {
	case x.Status == http.StatusSwitchingProtocols:
		x.ContentLength = -1
	case bodiless:
		x.ContentLength, x.Framed = max(x.ContentLength, 0), true
		x.finish()
	default:
		x.content.begin(resp.Body, x.ContentLength)
	}
	return nil
}

// measure makes the content's length and the Content-Length field agree. Where
// net/http cannot make sense of the field it lets it pass, for others to be
// misled by it (RFC 9110 §8.6, RFC 9113 §8.1.1).
func (x *Exchange) measure(bodiless bool) error {
	if !x.Own {
		gather(x.Header, "Content-Length")
	}
	values := x.Header["Content-Length"]
	if len(values) == 0 {
		if x.ContentLength == 0 && !x.Own && x.response.Body != http.NoBody {
			x.ContentLength = -1 // it does not say
		}
		x.ContentLength = max(x.ContentLength, -1)
		return nil
	}
	stated, ok := parseLength(values)
	switch {
	case !ok:
		return ProtocolError("a Content-Length that is none")
	case x.Status == http.StatusNoContent: // RFC 9110 §8.6
		delete(x.Header, "Content-Length")
		x.ContentLength = 0
	case x.Own, bodiless, x.ContentLength == 0, stated == x.ContentLength:
		x.ContentLength = stated
		x.Header["Content-Length"] = values[:1:1]
	case x.ContentLength < 0: // a caller's, which has changed the content
		x.ContentLength = -1
		delete(x.Header, "Content-Length")
	default:
		x.Header["Content-Length"] = []string{strconv.FormatInt(x.ContentLength, 10)}
	}
	return nil
}

// gather has all fields of a name stand under its canonical form, in which others
// look for it.
func gather(h http.Header, name string) {
	for spelled, values := range h {
		if spelled != name && len(spelled) == len(name) && strings.EqualFold(spelled, name) {
			h[name] = append(h[name][:len(h[name]):len(h[name])], values...)
			delete(h, spelled)
		}
	}
}

// parseLength returns what all of the values say.
func parseLength(values []string) (int64, bool) {
	first := values[0]
	if first == "" || len(first) > 18 {
		return 0, false
	}
	for _, value := range values[1:] {
		if value != first {
			return 0, false
		}
	}
	n := int64(0)
	for _, c := range []byte(first) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
