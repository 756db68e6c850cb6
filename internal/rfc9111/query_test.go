package rfc9111

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKeyQuery(t *testing.T) {
	many := "b=1" + strings.Repeat("&a=1", maxParameters)
	tests := []struct {
		query   string
		ignored []string
		sorted  bool
		want    string
	}{
		{"", []string{"a"}, true, ""},
		{"b=1&a=2", nil, false, "b=1&a=2"},
		{"b=1&a=2", nil, true, "a=2&b=1"},
		{"b=1&a=2&b=0", nil, true, "a=2&b=1&b=0"}, // the order of equal names has a meaning
		{"b=1&utm=x&a=2", []string{"utm"}, false, "b=1&a=2"},
		{"utm=x&utm=y&utm", []string{"utm"}, false, ""},
		{"%75tm=x&a", []string{"utm"}, false, "a"}, // however it is spelt
		{"u+m=x&a", []string{"u m"}, false, "a"},
		{"%zz=1&a=1", []string{"%zz"}, true, "%zz=1&a=1"}, // no name: stays
		{"utm_x=1", []string{"utm"}, false, "utm_x=1"},
		{"=1&&a=1", nil, true, "=1&&a=1"},
		{"b=1&%61=2&a=1", nil, true, "%61=2&a=1&b=1"}, // equal names, however they are spelt
		{"a=1&b=1&%61=2", nil, true, "a=1&%61=2&b=1"},
		{"cb=ok&utm=1;cb=evil", []string{"utm"}, false, "cb=ok&utm=1;cb=evil"}, // some take ; for a separator
		{"utm;cb=evil", []string{"utm"}, false, "utm;cb=evil"},
		{"utm=1%3Bcb=evil&a", []string{"utm"}, false, "a"}, // which that is not
		{"b=1;a=1&a=2", nil, true, "b=1;a=1&a=2"},
		{many, []string{"a"}, true, many},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, KeyQuery(tt.query, tt.ignored, tt.sorted), "%q", tt.query[:min(len(tt.query), 40)])
	}
}

func FuzzKeyQuery(f *testing.F) {
	f.Add("b=1&a=2&utm=3", true)
	f.Fuzz(func(t *testing.T, query string, sorted bool) {
		once := KeyQuery(query, []string{"utm"}, sorted)
		assert.Equal(t, once, KeyQuery(once, []string{"utm"}, sorted))
		assert.LessOrEqual(t, len(once), len(query))
	})
}
