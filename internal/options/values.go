package options

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxTokenBytes bounds tokens; together with the rest of a header it must fit
// what servers accept.
const maxTokenBytes = 16 << 10

// CheckToken judges a bearer token: visible ASCII, no white space (RFC 6750 §2.1).
func CheckToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	if len(token) > maxTokenBytes {
		return fmt.Errorf("the token is longer than %d bytes", maxTokenBytes)
	}
	if scheme, _, ok := strings.Cut(token, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return errors.New(`the token begins with "Bearer ", which is put in front of it`)
	}
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c >= 0x7f {
			return errors.New("the token has white space, control or non-ASCII characters")
		}
	}
	return nil
}

// CheckName judges a service's name, and says what is wrong with it.
func CheckName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > 64:
		return "the name is longer than 64 bytes"
	case name == "." || name == "..":
		return "the name is a dot segment"
	case !utf8.ValidString(name):
		return "the name is not UTF-8"
	}
	for _, c := range name {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c) {
			return "the name has characters other than letters, digits, '-', '.', '_' and '~'"
		}
	}
	return ""
}
