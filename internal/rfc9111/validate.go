package rfc9111

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

const (
	maxTag  = 1 << 10 // bytes of an entity tag; a longer one is none
	maxTags = 16      // entity tags in one validation request
	// modifiedLongAgo is how much earlier than Date a modification must lie to tell versions apart even if two clocks wrote the dates (RFC 9110
	// §8.8.2.2).
	modifiedLongAgo = time.Minute
)

// Validators are what tells a stored response from other versions of its resource (RFC 9110 §8.8). The zero value has none.
type Validators struct {
	ETag         string    // with its quotes, and with W/ if it is weak; "": none
	LastModified string    // in the form that senders may generate; "": none
	Modified     time.Time // what LastModified says
	Date         time.Time // when the response was generated, or else received, in whole seconds
}

// ParseValidators reads the validators of a response that arrived at received. What does not follow the grammar, occurs twice or is longer than
// 1 KiB is no validator.
func ParseValidators(response http.Header, received time.Time) Validators {
	v := Validators{Date: received.Truncate(time.Second)}
	if lines := response["Etag"]; len(lines) == 1 {
		line := textproto.TrimString(lines[0])
		if tag, rest, ok := entityTag(line); ok && rest == "" && len(tag) <= maxTag {
			v.ETag = tag
		}
	}
	if lines := response["Last-Modified"]; len(lines) == 1 {
		if t, ok := ParseDate(lines[0], received); ok {
			v.Modified, v.LastModified = t, lines[0]
			if _, ok := parseFixdate(lines[0]); !ok {
				v.LastModified = t.Format(http.TimeFormat) // RFC 9110 §5.6.7
			}
		}
	}
	if date, ok := ParseDate(response.Get("Date"), received); ok {
		v.Date = date
	}
	return v
}

// Any reports whether there is something to validate with. Date is not: it says nothing about the version.
func (v *Validators) Any() bool { return v.ETag != "" || v.LastModified != "" }

// StrongTag reports whether there is an entity tag that no other version, translation or encoding has (RFC 9110 §8.8.3).
func (v *Validators) StrongTag() bool { return strongTag(v.ETag) }

// Strong returns the validator that no two versions share (RFC 9110 §8.8.1), fit for If-Range: a strong entity tag or, where there is no entity
// tag at all, a Last-Modified of long before Date. Else it returns "".
func (v *Validators) Strong() string {
	switch {
	case strongTag(v.ETag):
		return v.ETag
	case v.ETag == "" && v.strongModified():
		return v.LastModified
	}
	return ""
}

// strongModified reports whether two versions of the resource cannot share the modification date (RFC 9110 §8.8.2.2).
func (v *Validators) strongModified() bool {
	return v.LastModified != "" && v.Date.Sub(v.Modified) >= modifiedLongAgo
}

// SameStrong reports whether both have the same strong validator, so that both are of one version, byte for byte.
func (v *Validators) SameStrong(other *Validators) bool {
	strong := v.Strong()
	return strong != "" && strong == other.Strong()
}

// StripConditions removes from h what makes a request conditional or partial, so that the answer is whole.
func StripConditions(h http.Header) {
	for _, name := range [...]string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range"} {
		delete(h, name)
	}
}

// SetConditions makes h, the header of a request to the upstream, validate the stored responses (RFC 9111 §4.3.1). The client's own conditions
// go: they are judged by what comes back. It reports whether h now has conditions; without any the answer cannot be a 304. The first entity tags
// are sent if there are more than 16. A response that is stored in part only is not to be among them (§4.3.2); see AskFor.
func SetConditions(h http.Header, stored ...Validators) bool {
	StripConditions(h)
	var tags []string
	for i := range stored {
		if tag := stored[i].ETag; tag != "" && len(tags) < maxTags && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	if len(tags) > 0 {
		h["If-None-Match"] = []string{strings.Join(tags, ", ")}
	}
	if len(stored) == 1 && stored[0].LastModified != "" { // §4.3.1: beside an entity tag too, for who does not know those
		h["If-Modified-Since"] = []string{stored[0].LastModified}
	}
	return len(tags) > 0 || has(h, "If-Modified-Since")
}

// Select appends to dst the indexes of the stored responses that a 304 freshens (RFC 9111 §4.3.4) and returns the extended slice. stored are
// those that could have been chosen for the request and were named in its conditions. None selected: the 304 is about something that is not
// stored, and the request is to be sent again without conditions.
func Select(dst []int, stored []Validators, response *Validators) []int {
	switch {
	case strongTag(response.ETag): // each that has the same
		for i := range stored {
			if stored[i].ETag == response.ETag {
				dst = append(dst, i)
			}
		}
	case response.Any(): // the most recent that corresponds
		newest := -1
		for i := range stored {
			if corresponds(&stored[i], response) && (newest < 0 || stored[i].Date.After(stored[newest].Date)) {
				newest = i
			}
		}
		if newest >= 0 {
			dst = append(dst, newest)
		}
	case len(stored) == 1: // the conditions were about nothing else, though the 304 should have its ETag (RFC 9110 §15.4.5)
		dst = append(dst, 0)
	}
	return dst
}

// corresponds compares validators of which those of the 304 are weak.
func corresponds(stored, response *Validators) bool {
	if response.ETag != "" {
		return stored.ETag != "" && opaque(stored.ETag) == opaque(response.ETag)
	}
	return stored.LastModified != "" && stored.Modified.Equal(response.Modified)
}

// Update returns a new header: stored with the fields of a newer response in the place of its own (RFC 9111 §3.2), of a 304, a 200 to HEAD or
// a further part. What belongs to the connection, what describes the bytes that are stored, and cookies stay as they were. Age and Date are the
// newer response's even where it has none. The values are shared with the arguments.
func Update(stored, newer http.Header) http.Header {
	h := make(http.Header, len(stored)+len(newer))
	maps.Copy(h, stored)
	delete(h, "Age")
	delete(h, "Date")
	var nominated map[string]bool
	for _, line := range newer["Connection"] { // RFC 9111 §3.1
		for member := range strings.SplitSeq(line, ",") {
			if nominated == nil {
				nominated = make(map[string]bool)
			}
			nominated[textproto.CanonicalMIMEHeaderKey(textproto.TrimString(member))] = true
		}
	}
	for name, lines := range newer {
		if updates(name) && !nominated[name] {
			h[name] = lines
		}
	}
	return h
}

// updates reports whether the field of a newer response replaces a stored one.
func updates(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", // RFC 9110 §7.6.1
		"Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", // RFC 9111 §3.1
		"Alt-Svc", "Proxy": // lead around the gateway
		return false
	case "Content-Length", "Content-Range": // RFC 9111 §3.2
		return false
	case "Content-Encoding", "Content-Digest", "Content-Md5", "Digest", "Repr-Digest": // §3.2: the stored bytes are what they say, whatever a 304 says
		return false
	case "Set-Cookie": // for one client (RFC 9111 §7.3)
		return false
	}
	return true
}

// HeadOutcome is what a response to HEAD says about a stored response to GET.
type HeadOutcome uint8

// The outcomes.
const (
	HeadSilent  HeadOutcome = iota // nothing
	HeadFreshen                    // it is current: Update it
	HeadStale                      // it is of another version
)

// Head compares a response to HEAD, which arrived at received, with a stored response that could have been chosen for the request, of status was
// and with a content of length bytes (RFC 9111 §4.3.5). A response that carries neither a validator nor a length is silent, unless what is stored
// says that there is no representation, or that it is elsewhere.
func Head(status int, response http.Header, received time.Time, was int, stored *Validators, length int64) HeadOutcome {
	switch {
	case status != http.StatusOK:
		return HeadSilent
	case was != http.StatusOK: // a 404 of the same length is no older version of it
		return HeadStale
	}
	v, outcome := ParseValidators(response, received), HeadSilent
	for _, field := range [...]struct {
		name string
		same bool
	}{
		{"Etag", v.ETag != "" && v.ETag == stored.ETag},
		{"Last-Modified", v.LastModified != "" && stored.LastModified != "" && v.Modified.Equal(stored.Modified)},
		{"Content-Length", contentLength(response) == length},
	} {
		if has(response, field.name) {
			if !field.same {
				return HeadStale
			}
			outcome = HeadFreshen
		}
	}
	return outcome
}

// contentLength returns what Content-Length says, or -1.
func contentLength(h http.Header) int64 {
	lines := h["Content-Length"]
	if len(lines) != 1 {
		return -1
	}
	n, rest, ok := position(textproto.TrimString(lines[0]))
	if !ok || rest != "" {
		return -1
	}
	return n
}

// entityTag splits a leading entity tag off s (RFC 9110 §8.8.3): nothing is escaped between the quotes, and W is upper case.
func entityTag(s string) (tag, rest string, ok bool) {
	i := len(s) - len(opaque(s))
	if i == len(s) || s[i] != '"' {
		return "", s, false
	}
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:], true
		case c <= ' ' || c == 0x7f:
			return "", s, false
		}
	}
	return "", s, false
}

// opaque returns an entity tag without the mark that it is weak.
func opaque(tag string) string { return strings.TrimPrefix(tag, "W/") }

func strongTag(tag string) bool { return tag != "" && tag[0] == '"' }
