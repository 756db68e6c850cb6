package rfc9111

import (
	"bytes"
	"net/http"
	"slices"
	"time"
)

// Resource is what is stored under one key: the variants that Vary tells apart, the youngest last. It is immutable; a change is another resource. It
// is not to be copied.
type Resource struct {
	Variants []*Entry
	Expired  bool // by the operator

	only [1]*Entry // what Variants is, where there is one: a hit goes to fewer places
}

// maxVariants bounds the variants of one resource.
const maxVariants = 16

// newResource takes the variants over.
func newResource(variants []*Entry) *Resource {
	if len(variants) == 1 {
		return resourceOf(variants[0])
	}
	return &Resource{Variants: variants}
}

// resourceOf returns a resource with one variant.
func resourceOf(e *Entry) *Resource {
	r := &Resource{only: [1]*Entry{e}}
	r.Variants = r.only[:]
	return r
}

// Find returns the variant that answers a request with that header; nil: none does. Of several it is one that names what selects it before one
// that forgot to (RFC 9111 §4.1), then the most recent by Date (§4), then the one that came last.
func (r *Resource) Find(request http.Header) (best *Entry) {
	for _, e := range slices.Backward(r.Variants) {
		if e.Matches(request) && (best == nil || compareEntries(e, best) < 0) {
			best = e
		}
	}
	return best
}

func compareEntries(a, b *Entry) int {
	if varies := len(a.Vary) > 0; varies != (len(b.Vary) > 0) {
		if varies {
			return -1
		}
		return 1
	}
	return b.Validators.Date.Compare(a.Validators.Date)
}

// With returns the resource with e in the place of the variant that it replaces, and of the one that the request for it selected before, and
// without the oldest if they are too many. r may be nil, as may instead.
func (r *Resource) With(e, instead *Entry) *Resource {
	if r == nil {
		return resourceOf(e)
	}
	others := make([]*Entry, 0, len(r.Variants)+1)
	for _, old := range r.Variants {
		if !bytes.Equal(old.variant, e.variant) && (instead == nil || !bytes.Equal(old.variant, instead.variant)) {
			others = append(others, old)
		}
	}
	return newResource(append(others[max(0, len(others)-maxVariants+1):], e))
}

// Expire returns the resource with nothing in it that is fresh.
func (r *Resource) Expire(now time.Time) *Resource {
	stale := make([]*Entry, len(r.Variants))
	for i, e := range r.Variants {
		stale[i] = e.expire(now)
	}
	out := newResource(stale)
	out.Expired = true
	return out
}

// Tagged reports whether one of the variants has, or may have, one of the tags.
func (r *Resource) Tagged(tags []string) bool {
	return slices.ContainsFunc(r.Variants, func(e *Entry) bool { return e.tagged(tags) })
}

// Size returns the bytes that it takes.
func (r *Resource) Size() (n int64) {
	for _, e := range r.Variants {
		n += e.Size
	}
	return n
}

// Useless returns when none of the variants can be of use any more.
func (r *Resource) Useless() (last time.Time) {
	for _, e := range r.Variants {
		if t := e.Useless(); t.After(last) {
			last = t
		}
	}
	return last
}

// Validatable returns the variants that a 304 may be about: those that the request selects (RFC 9111 §4.3.4). Where it selects none it may turn out
// to be one of the others, if a strong entity tag says so: a weak one or a date is often that of all translations and encodings. Some servers give even
// a strong one to all encodings, so what the client cannot decode is not among them.
func (r *Resource) Validatable(selected *Entry, request http.Header) (some []*Entry) {
	for _, e := range r.Variants {
		switch {
		case e.part != nil:
		case selected == nil:
			if e.Validators.StrongTag() && decodable(request, e.Head.Get("Content-Encoding")) {
				some = append(some, e)
			}
		case e.Validators.Any() && e.Matches(request):
			some = append(some, e)
		}
	}
	return some
}

// Conditions returns what tells those apart, for SetConditions.
func Conditions(validatable []*Entry, selected *Entry) (named []Validators) {
	for _, e := range validatable {
		validators := e.Validators
		if selected == nil {
			validators.LastModified = ""
		}
		named = append(named, validators)
	}
	return named
}

// Confirmed returns the entry that a 304 to those conditions is about (RFC 9111 §4.3.4), the selected one if that is among them; nil: it is about
// something that is not stored.
func Confirmed(validatable []*Entry, named []Validators, selected *Entry, response *Validators) *Entry {
	if selected == nil && !response.StrongTag() {
		return nil
	}
	var buf [maxVariants]int
	chosen := Select(buf[:0], named, response)
	for _, i := range chosen {
		if validatable[i] == selected {
			return selected
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	return validatable[chosen[0]]
}
