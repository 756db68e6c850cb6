package h1

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// fieldTable holds field lines that end in LF, which the tests make CRLF.
var fieldTable = []struct {
	name, raw string
	want      http.Header
	err       error
}{
	{"none", "", http.Header{}, nil},
	// field-line = field-name ":" OWS field-value OWS (RFC 9112 §5)
	{"one", "A: b\n", http.Header{"A": {"b"}}, nil},
	{"no space", "A:b\n", http.Header{"A": {"b"}}, nil},
	{"white space around the value", "A: \t b c \t \n", http.Header{"A": {"b c"}}, nil},
	{"empty value", "A:\n", http.Header{"A": {""}}, nil},
	{"value of white space", "A: \t \n", http.Header{"A": {""}}, nil},
	{"colon in the value", "A: b:c: d\n", http.Header{"A": {"b:c: d"}}, nil},
	{"tab within the value", "A: b\tc\n", http.Header{"A": {"b\tc"}}, nil},
	{"obs-text", "A: \x80\xff é\n", http.Header{"A": {"\x80\xff é"}}, nil},
	// Names are case-insensitive tokens (RFC 9110 §5.1)
	{"name in small letters", "x-request-id: 1\n", http.Header{"X-Request-Id": {"1"}}, nil},
	{"name in capitals", "X-REQUEST-ID: 1\n", http.Header{"X-Request-Id": {"1"}}, nil},
	{"name of every kind of byte", "!#$%&'*+-.^_`|~09azAZ: 1\n", http.Header{"!#$%&'*+-.^_`|~09azaz": {"1"}}, nil},
	{"name that ends in a hyphen", "a-: 1\n", http.Header{"A-": {"1"}}, nil},
	{"no name", ": b\n", nil, errName},
	{"space for a name", "A: b\n : c\n", http.Header{"A": {"b   : c"}}, nil}, // a continuation line
	{"no colon", "A\n", nil, errName},
	{"no colon, spaces", "A b c\n", nil, errName},
	{"space within the name", "A b: c\n", nil, errName},
	{"parenthesis in the name", "A(: c\n", nil, errName},
	{"NUL in the name", "A\x00: c\n", nil, errName},
	{"CR in the name", "A\r: c\n", nil, errName},
	{"DEL in the name", "A\x7f: c\n", nil, errName},
	{"\\x85 in the name", "A\x85: c\n", nil, errName},
	{"letters that fold to others", "\u212a: c\n", nil, errName},
	{"pseudo-header", ":status: 200\n", nil, errName},
	{"a chunk", "5\nhello\n", nil, errName},
	// Repeated lines keep their order (RFC 9110 §5.3)
	{"repeated", "A: 1\nB: 2\na: 3\nA: 4\n", http.Header{"A": {"1", "3", "4"}, "B": {"2"}}, nil},
	{"repeated, empty", "A:\nA:\n", http.Header{"A": {"", ""}}, nil},
	// White space before the colon is removed by a proxy (RFC 9112 §5.1)
	{"space before the colon", "Cache-Control : no-store\n", http.Header{"Cache-Control": {"no-store"}}, nil},
	{"white space before the colon", "cache-control \t : no-store\n", http.Header{"Cache-Control": {"no-store"}}, nil},
	{"space before the colon of one of two", "Cache-Control: private\nCache-Control : no-store\n", http.Header{"Cache-Control": {"private", "no-store"}}, nil},
	{"space before the colon, no value", "A :\n", http.Header{"A": {""}}, nil},
	{"space after the name, no colon", "A \n", nil, errName},
	{"other space before the colon", "A\x0b: b\n", nil, errName},
	{"space before the colon of a length", "Content-Length : 5\n", nil, errObscured},
	{"tab before the colon of a length", "content-length\t: 5\n", nil, errObscured},
	{"space before the colon of a coding", "TRANSFER-ENCODING : chunked\n", nil, errObscured},
	{"space before the colon of nearly a length", "Content-Lengths : 5\n", http.Header{"Content-Lengths": {"5"}}, nil},
	// obs-fold is replaced by spaces, here for CR, LF and itself (RFC 9112 §5.2)
	{"continuation line", "A: b\n c\n", http.Header{"A": {"b   c"}}, nil},
	{"continuation line by a tab", "A: b\n\tc\n", http.Header{"A": {"b  \tc"}}, nil},
	{"continuation lines", "A: b \n c\n  d\nE: f\n", http.Header{"A": {"b    c    d"}, "E": {"f"}}, nil},
	{"continuation line of nothing", "A:\n b\n", http.Header{"A": {"b"}}, nil},
	{"continuation line without anything", "A: b\n \n", http.Header{"A": {"b"}}, nil},
	{"continuation line like a field", "A: b\n Content-Length: 5\n", http.Header{"A": {"b   Content-Length: 5"}}, nil},
	{"continuation line first", " A: b\n", nil, errFold},
	{"continuation line first, by a tab", "\tA: b\n", nil, errFold},
	{"continuation line of spaces first", " \nA: b\n", nil, errFold},
	{"continuation line of a length", "Content-Length: 5\n 0\n", nil, errObscured},
	{"continuation line of no length", "Content-Length:\n 5\n", nil, errObscured},
	{"second continuation line of a length", "A: b\nContent-Length: 5\n \n", nil, errObscured},
	{"continuation line of a coding", "transfer-encoding: chunked\n\t\n", nil, errObscured},
	{"name continued", "Content-\n Length: 5\n", nil, errName},
	// CR, LF and NUL are dangerous, other control bytes invalid (RFC 9110 §5.5)
	{"NUL in a value", "A: b\x00c\n", http.Header{"A": {"b c"}}, nil},
	{"control bytes in a value", "A: \x01b\x1b[2J\x0b\x0c\x1fc\x7f\n", http.Header{"A": {"b [2J   c"}}, nil},
	{"control bytes alone", "A: \x00\x7f\x00\x7f\x00\x7f\x00\x7f\x00\x7f\n", http.Header{"A": {""}}, nil},
	{"control byte in a long value", "A: 0123456789012345678901\x00\tx\n", http.Header{"A": {"0123456789012345678901 \tx"}}, nil},
	{"control byte in a continuation line", "A: b\n \x00c\n", http.Header{"A": {"b    c"}}, nil},
	{"CR in a value", "A: b\rc\n", nil, errBareCR},
	{"CR and a field in a value", "A: b\rContent-Length: 5\n", nil, errBareCR},
	{"CR in a long value", "A: 0123456789012345\r78901234567\n", nil, errBareCR},
	{"CR at the end of a value", "A: b\r\r\n", nil, errBareCR},
	{"CR at the start of a value", "A:\rb\n", nil, errBareCR},
	{"CR in a continuation line", "A: b\n c\rd\n", nil, errBareCR},
	{"CR for a line", "A: b\n\r\r\n", nil, errName},
}

func TestFields(t *testing.T) {
	t.Parallel()
	for _, tt := range fieldTable {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := http.Header{}
			err := parseFields([]byte(wire(tt.raw)), got, 200)
			require.Equal(t, tt.err, err)
			if err != nil {
				return
			}
			require.Equal(t, tt.want, got)
		})
	}
}
