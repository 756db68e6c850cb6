package rfc9111

import (
	"net/http"
	"time"
)

// CDNCacheControl is the targeted field of caches that work for an origin (RFC 9213 §3), in its canonical form.
const CDNCacheControl = "Cdn-Cache-Control"

// ParseTargeted reads the first of the targeted fields, in the order of names, that is a Dictionary and not empty (RFC 9213 §2.2). It then
// stands in the place of Cache-Control and Expires; ok is false when there is none, and those count. names are canonical. Parameters and
// directives of a wrong type are ignored (§2.1), with one exception: one that restricts does so whatever its value, unless that is false.
func ParseTargeted(h http.Header, names []string) (c ResponseControl, ok bool) {
	for _, name := range names {
		lines := h[name]
		if len(lines) == 0 {
			continue
		}
		c, members := silent(), 0
		if sfDictionary(lines, func(key string, v sfValue) { members++; c.set(key, v) }) && members > 0 {
			c.settle()
			return c, true
		}
	}
	return ResponseControl{}, false
}

// mistyped stands, until the last member is read, for a lifetime whose type is wrong.
const mistyped = Absent - 1

// set takes a member of a Dictionary. The last of its name counts.
func (c *ResponseControl) set(key string, v sfValue) {
	restricts := v.kind != sfBoolean || v.integer == 1
	permits := v.kind == sfBoolean && v.integer == 1
	switch key {
	case "max-age":
		c.MaxAge = v.delta()
	case "s-maxage":
		c.SMaxAge = v.delta()
	case "stale-while-revalidate":
		c.StaleWhileRevalidate = v.delta()
	case "stale-if-error":
		c.StaleIfError = v.delta()
	case "immutable":
		c.Immutable = permits
	case "must-understand":
		c.MustUnderstand = permits
	case "public":
		c.Public = permits
	case "must-revalidate":
		c.MustRevalidate = restricts
	case "no-cache":
		c.NoCache = restricts
	case "no-store":
		c.NoStore = restricts
	case "no-transform":
		c.NoTransform = restricts
	case "private":
		c.Private = restricts
	case "proxy-revalidate":
		c.ProxyRevalidate = restricts
	}
}

// settle ignores what has the wrong type.
func (c *ResponseControl) settle() {
	c.Vague = c.MaxAge == mistyped || c.SMaxAge == mistyped
	for _, d := range []*time.Duration{&c.MaxAge, &c.SMaxAge, &c.StaleWhileRevalidate, &c.StaleIfError} {
		*d = max(*d, Absent)
	}
}

// delta returns an Integer as delta-seconds. A negative one is in the past.
func (v sfValue) delta() time.Duration {
	if v.kind != sfInteger {
		return mistyped
	}
	return time.Duration(min(max(v.integer, 0), int64(MaxDelta/time.Second))) * time.Second
}
