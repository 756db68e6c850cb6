package h1

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	spacedName = regexp.MustCompile("(?m)^([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]+:")
	folded     = regexp.MustCompile("\n[ \t]")
	framingOf  = regexp.MustCompile("(?mi)^(Content-Length|Transfer-Encoding):.*\n")
	trailerOf  = regexp.MustCompile("(?mi)^Trailer:")
)

// tidy does to a head what this package does and net/http does not: white space before colons goes, control bytes become spaces, and
// what a response without content says of its framing does not count.
func tidy(raw []byte, status int) []byte {
	line, fields, _ := bytes.Cut(bytes.Clone(raw), []byte("\n"))
	for i, c := range fields {
		if c < ' ' && !strings.ContainsRune("\t\r\n", rune(c)) || c == 0x7f {
			fields[i] = ' '
		}
	}
	fields = spacedName.ReplaceAll(fields, []byte("$1:"))
	if status < 200 || status == http.StatusNoContent {
		fields = framingOf.ReplaceAll(fields, nil)
	}
	return bytes.Join([][]byte{line, fields}, []byte("\n"))
}

// What this package accepts, net/http accepts once it is tidy, and both read the same in it. Only a list of equal lengths is more than
// net/http understands.
func FuzzHead(f *testing.F) {
	for _, tt := range headTable {
		if len(tt.raw) < 1000 {
			f.Add([]byte(wire(tt.raw)))
			f.Add([]byte(tt.raw + "\n"))
		}
	}
	for _, tt := range fieldTable {
		f.Add([]byte(wire("HTTP/1.1 200 OK\n" + tt.raw)))
	}
	for _, bench := range benchHeads[:2] {
		f.Add([]byte(bench.raw))
	}
	f.Fuzz(func(t *testing.T, buf []byte) {
		end := scanHead(buf, 0)
		trickle(t, buf[:min(len(buf), 200)], scanHead(buf[:min(len(buf), 200)], 0))
		raw := bytes.Clone(buf[:end])
		var h head
		if err := h.parse(raw, http.Header{}, headLimits); err != nil {
			require.ErrorAs(t, err, new(ProtocolError))
			return
		}
		checkHead(t, &h)
		again := head{}
		require.NoError(t, again.parse(raw, http.Header{}, headLimits), "what was rewritten reads the same")
		require.Equal(t, h, again)

		clean := tidy(buf[:end], h.status)
		sameFields(t, &h, clean)
		sameFraming(t, &h, clean)
	})
}

// checkHead checks what holds for every head that is accepted.
func checkHead(t *testing.T, h *head) {
	require.True(t, 100 <= h.status && h.status <= 599 && 0 <= h.minor && h.minor <= 9, "%d, HTTP/1.%d", h.status, h.minor)
	require.False(t, h.chunked && h.length >= 0)
	require.NotContains(t, h.header, "Transfer-Encoding")
	require.Equal(t, h.length >= 0, h.header["Content-Length"] != nil)
	n := 0
	for name, values := range h.header {
		require.True(t, name != "" && canonicalize([]byte(name)) == len(name), "%q is no token", name)
		require.Equal(t, http.CanonicalHeaderKey(name), name)
		require.NotEmpty(t, values)
		n += len(values)
		for _, value := range values {
			require.Equal(t, strings.Trim(value, " \t"), value)
			require.Equal(t, -1, strings.IndexFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }), "%q", value)
		}
	}
	require.LessOrEqual(t, n, headLimits.fields)
}

// sameFields compares with what textproto reads.
func sameFields(t *testing.T, h *head, clean []byte) {
	_, fields, _ := bytes.Cut(clean, []byte("\n"))
	want, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(fields))).ReadMIMEHeader()
	require.NoError(t, err)
	delete(want, "Transfer-Encoding")
	got := h.header.Clone()
	if len(want["Content-Length"]) > 0 {
		for _, line := range want["Content-Length"] {
			require.Empty(t, strings.Trim(strings.ReplaceAll(line, got.Get("Content-Length"), ""), ", \t"))
		}
		delete(want, "Content-Length")
		delete(got, "Content-Length")
	}
	fold := folded.Match(fields)
	for _, header := range []http.Header{got, http.Header(want)} {
		for _, values := range header {
			for i, value := range values {
				values[i] = strings.Trim(value, " \t")
				if fold { // which is one space there
					values[i] = strings.Join(strings.FieldsFunc(value, func(c rune) bool { return c == ' ' || c == '\t' }), " ")
				}
			}
		}
	}
	require.Equal(t, http.Header(want), got)
}

// sameFraming compares with what net/http reads.
func sameFraming(t *testing.T, h *head, clean []byte) {
	if strings.Contains(string(bytes.Join(framingOf.FindAll(clean, -1), nil)), ",") {
		return
	}
	clean = trailerOf.ReplaceAll(clean, []byte("X-Trailer:")) // which net/http judges, and takes away
	want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(clean)), nil)
	require.NoError(t, err)
	require.Equal(t, want.StatusCode, h.status)
	require.Equal(t, want.ProtoMinor, h.minor)
	require.Equal(t, len(want.TransferEncoding) > 0, h.chunked)
	switch {
	case h.status < 200, h.status == http.StatusNoContent, h.status == http.StatusNotModified:
		require.Equal(t, want.Close, h.close)
	case h.chunked, h.length >= 0:
		require.Equal(t, want.ContentLength, h.length)
		require.Equal(t, want.Close, h.close)
	default:
		require.True(t, want.ContentLength == -1 && want.Close, "the content ends with the connection")
	}
}
