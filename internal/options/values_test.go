package options

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "users", "A-b.c_d~9", "...", "..a", strings.Repeat("x", 64)} {
		assert.Empty(t, CheckName(name), name)
	}
	for name, reason := range map[string]string{
		"": "empty", strings.Repeat("x", 65): "longer than 64 bytes", ".": "dot segment", "..": "dot segment", "\xff": "not UTF-8",
		"a/b": "characters other than", "a b": "characters other than", "a%2f": "characters other than", "ä": "characters other than", "a\x00": "characters other than",
	} {
		assert.Contains(t, CheckName(name), reason, "%q", name)
	}
}

func TestCheckToken(t *testing.T) { // RFC 6750 §2.1
	t.Parallel()
	for _, token := range []string{"t", "abc.def-123_~+/==", "Bearer", strings.Repeat("x", maxTokenBytes)} {
		assert.NoError(t, CheckToken(token), "%.20q", token)
	}
	for token, reason := range map[string]string{
		"": "empty", strings.Repeat("x", maxTokenBytes+1): "longer than 16384 bytes", "bearer t": `begins with "Bearer "`,
		"a b": "white space", "a\r\nX: 1": "control", "t\n": "control", "\x7f": "control", "ä": "non-ASCII", " a": "white space",
	} {
		err := CheckToken(token)
		if assert.Error(t, err, "%.20q", token) {
			assert.Contains(t, err.Error(), reason)
		}
	}
}
