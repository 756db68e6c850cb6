package testnet

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxHead bounds the bytes of start lines, fields and trailers in one message, interim responses included.
const maxHead = 4 << 20

// wire reads messages from one direction of a connection, strictly: no bare LF, no folding, no space before a colon, no chunk
// extension, no leading empty line, no message with two framings.
type wire struct {
	src  *bufio.Reader
	raw  []byte // of the message being read
	n    int64  // its bytes so far
	head int64  // of them, in lines
}

func newWire(src io.Reader) *wire { return &wire{src: bufio.NewReaderSize(src, 32<<10)} }

func (w *wire) begin() { w.raw, w.n, w.head = nil, 0, 0 }

// request reads one head. The body is then read from the message; without one the message is already whole.
func (w *wire) request() *Request {
	w.begin()
	r := &Request{Message: Message{w: w}}
	err := w.requestHead(r)
	switch {
	case err != nil:
		r.Framing = ""
		r.finish(err)
	case r.Framing == "":
		r.Framing = NoBody
	}
	r.endWithoutBody()
	return r
}

func (w *wire) requestHead(r *Request) error {
	line, err := w.line()
	if err != nil {
		return err
	}
	method, rest, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(rest, " ")
	if !isToken(method) || !isTarget(target) || !isProto(proto) { // RFC 9112 §3
		return bad("request line %q", line)
	}
	r.Method, r.Target, r.Proto = method, target, proto
	if r.Header, err = w.fields(); err != nil {
		return err
	}
	r.Head = string(w.raw)
	hosts := r.Header["Host"]
	if len(hosts) > 1 || (len(hosts) == 0 && proto == "HTTP/1.1") { // RFC 9112 §3.2
		return bad("%d Host fields", len(hosts))
	}
	if len(hosts) == 1 && strings.ContainsAny(hosts[0], " \t,@/\\?#") {
		return bad("Host %q", hosts[0])
	}
	return r.frame()
}

// response reads heads up to that of the final response to a request of the given method.
func (w *wire) response(method string) *Response {
	w.begin()
	var interim []*Response
	for {
		r := &Response{Message: Message{w: w}}
		start := len(w.raw)
		err := w.responseHead(r, method)
		if err != nil {
			*r = Response{Message: Message{w: w}, Interim: interim}
			r.finish(err)
			return r
		}
		r.Head = string(w.raw[min(start, len(w.raw)):])
		if r.Status >= 200 || r.Status == http.StatusSwitchingProtocols {
			r.Interim = interim
			r.endWithoutBody()
			return r
		}
		r.End, r.Raw = Whole, []byte(r.Head)
		interim = append(interim, r)
	}
}

func (w *wire) responseHead(r *Response, method string) error {
	line, err := w.line()
	if err != nil {
		return err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, reason, spaced := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !isProto(proto) || len(code) != 3 || err != nil || status < 100 || status > 599 || !spaced || !isValue(reason) { // RFC 9112 §4
		return bad("status line %q", line)
	}
	r.Proto, r.Status, r.Reason = proto, status, reason
	if r.Header, err = w.fields(); err != nil {
		return err
	}
	if err := r.frame(); err != nil {
		return err
	}
	bodiless := status < 200 || status == http.StatusNoContent // RFC 9110 §8.6, RFC 9112 §6.1
	if bodiless && r.Framing != "" {
		return bad("framing in a %d response", status)
	}
	tunnel := method == http.MethodConnect && status/100 == 2
	switch {
	case bodiless, tunnel, status == http.StatusNotModified, method == http.MethodHead: // RFC 9112 §6.3
		r.Framing = NoBody
	case r.Framing == "":
		r.Framing = ByClose
	}
	return nil
}

// frame judges the two framing fields (RFC 9112 §6.1-6.3). It leaves Framing empty where there is none.
func (m *Message) frame() error {
	m.Length = -1
	te, cl := m.Header["Transfer-Encoding"], m.Header["Content-Length"]
	switch {
	case len(te) > 0 && len(cl) > 0:
		return bad("both Transfer-Encoding %q and Content-Length %q", te, cl)
	case len(te) > 0:
		if len(te) > 1 || !strings.EqualFold(te[0], "chunked") || m.Proto == "HTTP/1.0" {
			return bad("Transfer-Encoding %q in %s", te, m.Proto)
		}
		m.Framing = Chunked
	case len(cl) > 0:
		n, err := number(cl[0], 10)
		if len(cl) > 1 || err != nil {
			return bad("Content-Length %q", cl)
		}
		m.Framing, m.Length, m.left = ByLength, n, n
	}
	return nil
}

func (m *Message) endWithoutBody() {
	if m.End == "" && (m.Framing == NoBody || m.Framing == ByLength && m.left == 0) {
		m.finish(nil)
	}
}

// decode reads some of the body; io.EOF is its framed end.
func (m *Message) decode(p []byte) (int, error) {
	switch m.Framing {
	case ByClose:
		return m.w.read(p)
	case Chunked:
		if m.left == 0 {
			if err := m.nextChunk(); err != nil {
				return 0, err
			}
		}
	}
	n, err := m.w.read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	switch {
	case err != nil:
		return n, cut(err)
	case m.left > 0:
		return n, nil
	case m.Framing == ByLength:
		return n, io.EOF
	}
	return n, cut(m.w.crlf())
}

// nextChunk reads a chunk's size, and behind the last one the trailer section: then it returns io.EOF (RFC 9112 §7.1).
func (m *Message) nextChunk() error {
	line, err := m.w.line()
	if err != nil {
		return cut(err)
	}
	if m.left, err = number(line, 16); err != nil {
		return bad("chunk size %q", line)
	}
	if m.left > 0 {
		return nil
	}
	trailer, err := m.w.fields()
	if err != nil {
		return cut(err)
	}
	if len(trailer) > 0 {
		m.Trailer = trailer
	}
	return io.EOF
}

// fields reads field lines and the empty line behind them (RFC 9112 §5).
func (w *wire) fields() (http.Header, error) {
	h := http.Header{}
	for {
		line, err := w.line()
		if err != nil {
			return nil, cut(err)
		}
		if line == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !isToken(name) || !isValue(value) {
			return nil, bad("field line %q", line)
		}
		h.Add(name, value)
	}
}

// line reads up to CRLF, which it cuts off.
func (w *wire) line() (string, error) {
	var line []byte
	for {
		part, err := w.src.ReadSlice('\n')
		w.take(part)
		line = append(line, part...)
		if w.head += int64(len(part)); w.head > maxHead {
			return "", bad("head beyond %d bytes", maxHead)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok { // RFC 9112 §2.2
		return "", bad("line %q ends in a bare LF", line)
	}
	return text, nil
}

// crlf reads the end of a chunk's data.
func (w *wire) crlf() error {
	for _, want := range []byte("\r\n") {
		c, err := w.src.ReadByte()
		if err != nil {
			return err
		}
		w.take([]byte{c})
		if c != want {
			return bad("%q after a chunk's data", c)
		}
	}
	return nil
}

func (w *wire) read(p []byte) (int, error) {
	n, err := w.src.Read(p)
	w.take(p[:n])
	return n, err
}

func (w *wire) take(p []byte) {
	w.raw = keep(w.raw, p)
	w.n += int64(len(p))
}

// cut makes an EOF that the framing did not promise an unexpected one.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// number reads digits alone: no sign, no white space, no underscore, no prefix.
func number(s string, base int) (int64, error) {
	for i := range len(s) {
		if c := s[i] | 0x20; (s[i] < '0' || s[i] > '9') && (base != 16 || c < 'a' || c > 'f') {
			return 0, bad("digit %q", s[i])
		}
	}
	return strconv.ParseInt(s, base, 64)
}

func isProto(s string) bool { return s == "HTTP/1.1" || s == "HTTP/1.0" }

// isTarget: visible ASCII without a fragment (RFC 9112 §3.2). Its form is for the tests to judge.
func isTarget(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) < 0
}

// isToken: RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// isValue: RFC 9110 §5.5, and the reason phrase of RFC 9112 §4.
func isValue(s string) bool {
	for i := range len(s) {
		if (s[i] < ' ' && s[i] != '\t') || s[i] == 0x7f {
			return false
		}
	}
	return true
}
