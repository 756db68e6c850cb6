package testnet

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
)

// Answer writes out a response. header holds field lines without the last CRLF, or nothing. A Content-Length is added unless header
// says how the body is framed or the status has none.
func Answer(status int, header, body string) string {
	framed := hasField(header, "Content-Length") || hasField(header, "Transfer-Encoding")
	if !framed && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified {
		header = join(header, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n%s", status, http.StatusText(status), ended(header), body)
}

// Build writes out a request. Host is added unless a field names it, and Content-Length for a body that no field frames.
func Build(method, target, body string, fields ...string) string {
	header := strings.Join(fields, "\r\n")
	if !hasField(header, "Host") {
		header = join("Host: gateway.test", header)
	}
	if body != "" && !hasField(header, "Content-Length") && !hasField(header, "Transfer-Encoding") {
		header = join(header, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\n%s\r\n%s", method, target, ended(header), body)
}

// Get is Build of a GET.
func Get(target string, fields ...string) string { return Build(http.MethodGet, target, "", fields...) }

// Chunks writes out chunks and the last one, with an empty trailer section.
func Chunks(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(d), d)
	}
	return b.String() + "0\r\n\r\n"
}

// Reply is a script that answers every request alike, HEAD without the body.
func Reply(status int, header, body string) func(*Conn) {
	raw := Answer(status, header, body)
	head := strings.TrimSuffix(raw, body)
	return Respond(func(r *Request) string {
		if r.Method == http.MethodHead {
			return head
		}
		return raw
	})
}

// Replies is a script that sends the first of answers to the first request, over all connections, and so on; the last one to all
// that follow. Each is sent as it is.
func Replies(answers ...string) func(*Conn) {
	var next atomic.Int64
	return Respond(func(*Request) string {
		return answers[min(int(next.Add(1)), len(answers))-1]
	})
}

// Respond is a script that sends what respond returns to each whole request, as it is, and closes after an empty string or a head
// that says Connection: close.
func Respond(respond func(*Request) string) func(*Conn) {
	return func(c *Conn) {
		for r := c.ReadRequest(); r != nil; r = c.ReadRequest() {
			raw := respond(r)
			head, _, _ := strings.Cut(raw, "\r\n\r\n")
			if raw == "" || !c.Send(raw) || hasLine(head, "connection: close") {
				return
			}
		}
	}
}

func hasField(header, name string) bool { return hasLine(header, strings.ToLower(name)+":") }

func hasLine(header, prefix string) bool {
	return strings.Contains("\r\n"+strings.ToLower(header), "\r\n"+prefix)
}

// join makes lines of header and line, each ended by CRLF; either may be empty.
func join(header, line string) string {
	return ended(header) + ended(line)
}

func ended(lines string) string {
	if lines == "" || strings.HasSuffix(lines, "\r\n") {
		return lines
	}
	return lines + "\r\n"
}
