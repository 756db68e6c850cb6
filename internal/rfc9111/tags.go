package rfc9111

import (
	"net/http"
	"slices"
	"strings"
)

// A response may have this many tags. RFC 9875 §2 asks for 32 groups of 32 characters at least.
const (
	maxNames     = 256
	maxNameBytes = 16 << 10
)

// Tags returns the names under which a response can be purged together with others, sorted and each once: the members of Surrogate-Key, parted
// by spaces, of Cache-Tag, parted by commas, and of Cache-Groups, Strings of a Structured Field (RFC 9875 §2). They are compared byte by byte. ok
// is false when they are more than 256 or 16 KiB: what cannot hold them all cannot keep the promise to purge it.
func Tags(h http.Header) (tags []string, ok bool) {
	if fieldBytes(h["Surrogate-Key"])+fieldBytes(h["Cache-Tag"])+fieldBytes(h["Cache-Groups"]) > maxNameBytes {
		return nil, false
	}
	for _, line := range h["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	for _, line := range h["Cache-Tag"] {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				tags = append(tags, tag)
			}
		}
	}
	return distinct(append(tags, groups(h["Cache-Groups"])...))
}

// InvalidatedGroups returns the groups of this origin that a response to this method makes invalid, sorted and each once (RFC 9875 §3). A safe
// method makes none. ok is false when they are more than 256 or 16 KiB: any group may be among them.
func InvalidatedGroups(method string, h http.Header) (names []string, ok bool) {
	lines := h["Cache-Group-Invalidation"]
	if len(lines) == 0 || safe(method) {
		return nil, true
	}
	if fieldBytes(lines) > maxNameBytes {
		return nil, false
	}
	return distinct(groups(lines))
}

// groups reads a List of Strings. What is none is ignored as a whole (RFC 9651 §4.2), parameters are ignored alone (RFC 9875 §2).
func groups(lines []string) (names []string) {
	if len(lines) == 0 {
		return nil
	}
	others := false
	ok := sfList(lines, func(v sfValue) {
		others = others || v.kind != sfString
		names = append(names, v.text)
	})
	if !ok || others {
		return nil
	}
	return names
}

func distinct(names []string) ([]string, bool) {
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxNames {
		return nil, false
	}
	return names, true
}

func fieldBytes(lines []string) (n int) {
	for _, line := range lines {
		n += len(line)
	}
	return n
}
