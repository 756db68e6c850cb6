package h1

import (
	"bytes"
	"math"
	"net/http"
	"strings"
)

// ProtocolError says what is wrong with a response. It is a fixed text: nothing that the upstream sent is in it.
type ProtocolError string

func (e ProtocolError) Error() string { return "malformed response: " + string(e) }

// ProxyError is the proxy error type (RFC 9209 §2.3).
func (e ProtocolError) ProxyError() string {
	switch e {
	case errHeadTooLarge, errFields:
		return "http_response_header_section_size"
	case errTrailerSize:
		return "http_response_trailer_section_size"
	case errCodingOld, errCodingEmpty, errCoding, errChunkSize, errChunkLarge, errChunkLine, errChunkLong, errChunkEnd, errChunkExcess:
		return "http_response_transfer_coding"
	}
	return "http_protocol_error"
}

const (
	errHeadTooLarge ProtocolError = "head too large"
	errHeadCut      ProtocolError = "head without end"
	errStatusLine   ProtocolError = "no HTTP/1 status line"
	errStatus       ProtocolError = "status outside 100-599"
	errBoth         ProtocolError = "both Transfer-Encoding and Content-Length"
	errCodingOld    ProtocolError = "Transfer-Encoding in HTTP/1.0"
	errCodingEmpty  ProtocolError = "Transfer-Encoding without content"
	errCoding       ProtocolError = "Transfer-Encoding other than chunked"
	errLength       ProtocolError = "Content-Length is no length"
	errLengths      ProtocolError = "differing Content-Length"
)

// limits bounds a head: the bytes that it may have, and the field lines, continuation lines included.
type limits struct{ bytes, fields int }

// scanHead returns how long the head at the start of buf is, its empty line included, or 0 if it is not complete. from is how much of
// buf a former call has seen, so that a head that trickles in costs linear time. What begins like no status line is complete as it
// is: parse refuses it, and nobody waits for the end of what is no HTTP.
func scanHead(buf []byte, from int) int {
	if from < len(statusPattern) && !statusLine(buf) {
		return len(buf)
	}
	for i := max(from-len("\n\r"), 0); ; {
		n := bytes.IndexByte(buf[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		switch rest := buf[i:]; {
		case len(rest) > 0 && rest[0] == '\n': // RFC 9112 §2.2: a line may end in LF alone
			return i + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 2
		}
	}
}

// statusPattern is how each status line begins (RFC 9112 §4), 0 being any digit.
const statusPattern = "HTTP/1.0 000"

// statusLine reports whether a status line begins like p, as far as p goes.
func statusLine(p []byte) bool {
	for i, c := range p[:min(len(p), len(statusPattern))] {
		if want := statusPattern[i]; c != want && (want != '0' || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// head is what a response head says.
type head struct {
	status  int
	minor   int         // of HTTP/1.x
	header  http.Header // as received but for what normalize and frame change
	length  int64       // of the content by Content-Length, also where there is none to come (HEAD, 304); -1: not stated
	chunked bool        // the content is in the chunked coding
	close   bool        // the connection ends with this response (RFC 9112 §9.3)
}

// parse reads raw, a complete head as scanHead found it, and adds its fields to header, which is empty and not nil. It rewrites raw
// in place; header does not refer to it. The error is a ProtocolError.
func (h *head) parse(raw []byte, header http.Header, l limits) error {
	*h = head{header: header, length: -1}
	if len(raw) > l.bytes {
		return errHeadTooLarge
	}
	if err := h.parseStatus(raw); err != nil {
		return err
	}
	_, fields, ok := bytes.Cut(raw, lf) // RFC 9112 §4: a reason phrase is to be ignored, whatever it holds
	if !ok {
		return errHeadCut
	}
	if err := parseFields(fields, header, l.fields); err != nil {
		return err
	}
	connection := header["Connection"]
	h.close = listed(connection, "close") || h.minor == 0 && !listed(connection, "keep-alive")
	return h.frame()
}

// parseStatus reads the version and the status code. A server that leaves out the space before an absent reason is understood.
func (h *head) parseStatus(raw []byte) error {
	const n = len(statusPattern)
	if len(raw) <= n || !statusLine(raw) {
		return errStatusLine
	}
	switch after := raw[n:]; {
	case after[0] == ' ', after[0] == '\n':
	case len(after) > 1 && after[0] == '\r' && after[1] == '\n':
	default:
		return errStatusLine
	}
	h.minor = int(raw[7] - '0')
	h.status = int(raw[9]-'0')*100 + int(raw[10]-'0')*10 + int(raw[11]-'0')
	if h.status < 100 || h.status > 599 { // RFC 9110 §15
		return errStatus
	}
	return nil
}

// frame finds out how the content is delimited (RFC 9112 §6) and takes from the header what says so but is not the end-to-end length.
func (h *head) frame() error {
	codings, coded := h.header["Transfer-Encoding"]
	lengths, sized := h.header["Content-Length"]
	switch {
	case !coded && !sized:
		return nil
	case h.status < 200: // has no content (RFC 9110 §15.2), nor any use for either
		delete(h.header, "Transfer-Encoding")
		delete(h.header, "Content-Length")
		return nil
	case coded && sized:
		return errBoth // RFC 9112 §6.1, §6.3: ought to be handled as an error
	case coded:
		return h.frameCoded(codings)
	case h.status == http.StatusNoContent:
		delete(h.header, "Content-Length") // RFC 9110 §8.6: must not be sent
		return nil
	}
	text, n, err := contentLength(lengths)
	if err != nil {
		return err
	}
	if len(lengths) > 1 || lengths[0] != text {
		lengths[0] = text
		h.header["Content-Length"] = lengths[:1:1]
	}
	h.length = n
	return nil
}

// frameCoded accepts chunked, once and nothing else: the client gets the content as it is, and asked for no other coding.
func (h *head) frameCoded(codings []string) error {
	switch {
	case h.minor == 0:
		return errCodingOld // RFC 9112 §6.1: treat as if the framing is faulty
	case h.status == http.StatusNoContent:
		return errCodingEmpty // RFC 9112 §6.1: must not be sent
	case len(codings) != 1 || !equalFold(codings[0], "chunked"):
		return errCoding
	}
	delete(h.header, "Transfer-Encoding")
	h.chunked = true
	return nil
}

// contentLength returns the one value that all members of all lines have, as written and as a number (RFC 9110 §8.6).
func contentLength(lines []string) (text string, n int64, err error) {
	for i, line := range lines {
		for more, first := true, i == 0; more; first = false {
			var member string
			member, line, more = strings.Cut(line, ",")
			member = trimOWS(member)
			if first {
				text = member
			} else if member != text {
				return "", 0, errLengths
			}
		}
	}
	if text == "" {
		return "", 0, errLength
	}
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' || n > (math.MaxInt64-9)/10 {
			return "", 0, errLength
		}
		n = n*10 + int64(c-'0')
	}
	return text, n, nil
}

// listed reports whether the list field with these lines has the member token, in any case (RFC 9110 §5.6.1).
func listed(lines []string, token string) bool {
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = strings.Cut(line, ",")
			if equalFold(trimOWS(member), token) {
				return true
			}
		}
	}
	return false
}

// equalFold reports whether s is the ASCII text token in any case. One length leaves no room for runes that fold to ASCII, as K does.
func equalFold(s, token string) bool { return len(s) == len(token) && strings.EqualFold(s, token) }
