package forward

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RequestConfig says how the header of a service's requests is built.
type RequestConfig struct {
	Set             http.Header    // fields put into every request, over all others
	Drop            []string       // further names whose client copy never passes, such as Authorization with a token source
	Trusted         []netip.Prefix // peers whose forwarding fields are believed
	Via             string         // our pseudonym; empty: no Via, no loop detection
	MaxHops         int            // more members than this with our pseudonym in Via are a loop
	RequestIDHeader string         // name of the request id's field; empty: none is managed
	Clone           bool           // whoever gets the header writes to its values: share none
	Baggage         bool           // pass Baggage on
	Forwarded       bool           // send Forwarded (RFC 7239), in which Via is our name; it is not empty then
}

// RequestRules is the header hygiene of one service's requests. It is immutable. Make it with NewRequestRules.
type RequestRules struct {
	set             http.Header
	managed         nameSet // names of set, drop and the request id
	trusted         []netip.Prefix
	pseudonym       string
	via             [4]string // our Via member for HTTP/1.0, 1.1, 2 and 3
	maxHops         int
	requestIDHeader string
	clone           bool
	baggage         bool
	forwarded       bool
}

// Inbound is what Outbound needs to know of one request. Header is only read.
type Inbound struct {
	Header                 http.Header
	RemoteAddr, Host       string // as in http.Request
	TLS                    bool
	ProtoMajor, ProtoMinor int
	Prefix                 string // what was taken off the path, as Prefix returns it
	Upgrade                bool   // to WebSocket, as Upgrade found it
	Content                bool   // some follows
	RequestID              string
}

// NewRequestRules makes the rules that c describes. It keeps no reference to c's maps and slices.
func NewRequestRules(c RequestConfig) *RequestRules {
	r := &RequestRules{
		set:             make(http.Header, len(c.Set)),
		pseudonym:       c.Via,
		maxHops:         c.MaxHops,
		requestIDHeader: http.CanonicalHeaderKey(c.RequestIDHeader),
		clone:           c.Clone,
		baggage:         c.Baggage,
		forwarded:       c.Forwarded,
	}
	for name, values := range c.Set {
		r.set[http.CanonicalHeaderKey(name)] = slices.Clip(slices.Clone(values))
		r.managed.add(name)
	}
	for _, name := range c.Drop {
		r.managed.add(name)
	}
	r.managed.add(c.RequestIDHeader)
	for _, prefix := range c.Trusted {
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		r.trusted = append(r.trusted, prefix.Masked())
	}
	if c.Via != "" {
		for i, version := range [...]string{"1.0", "1.1", "2.0", "3.0"} {
			r.via[i] = version + " " + c.Via
		}
	}
	return r
}

// Scratch is memory for the header of one request at a time, to be used again once that is sent. Its zero value is ready.
type Scratch struct {
	header http.Header
	values [mostlySet]string
}

// mostlySet is how many fields we set on a typical request.
const mostlySet = 8

// Outbound returns the header to send upstream: a map that shares the slices of values with in.Header, clipped, unless the
// rules say Clone. Content-Length, Transfer-Encoding, Trailer and Host are not in it: whoever sends the request frames and addresses it.
// A User-Agent that the client did not send is there as "", so that no client library adds its own. The header lies in s, which is
// not used where it is nil or where the rules say Clone.
func (r *RequestRules) Outbound(in *Inbound, s *Scratch) http.Header {
	peer, known := parseAddr(in.RemoteAddr)
	trusted := known && r.trusts(peer)
	var o outbound
	if s == nil || r.clone {
		o = outbound{make(http.Header, len(in.Header)+len(r.set)+mostlySet), make([]string, 0, mostlySet)}
	} else {
		if s.header == nil {
			s.header = make(http.Header, len(in.Header)+len(r.set)+mostlySet)
		}
		clear(s.header)
		o = outbound{s.header, s.values[:0]}
	}
	for name, values := range in.Header {
		if r.passes(name, trusted) {
			o.header[name] = r.share(values)
		}
	}
	deleteNominated(o.header, in.Header["Connection"])

	// Ours come last, so that nothing above can take them away.
	o.connection(in)
	o.forwarded(r, in, peer, trusted)
	if r.requestIDHeader != "" && in.RequestID != "" {
		o.put(r.requestIDHeader, in.RequestID)
	}
	if _, ok := o.header["User-Agent"]; !ok {
		o.put("User-Agent", "")
	}
	for name, values := range r.set {
		o.header[name] = r.share(values)
	}
	return o.header
}

// Settle has a header that an app's hook was given be again what Outbound promises, and reports why a request with it, and with that
// Host, could not be sent. The error never holds a value.
func Settle(h http.Header, host string) error {
	if !only(host, isVisible) {
		return fmt.Errorf("host %q has bytes that are not visible ASCII", host)
	}
	for name, values := range h {
		if !IsToken(name) {
			return fmt.Errorf("field name %q is not a token", name)
		}
		var buf [64]byte
		switch string(fold(buf[:0], name)) {
		case "content-length", "transfer-encoding", "trailer", "host":
			delete(h, name) // a second one would be read as another message by some (RFC 9112 §11.2)
			continue
		}
		for _, value := range values {
			if !cleanValue(value) {
				return fmt.Errorf("value of field %s has a control byte", name)
			}
		}
	}
	return nil
}

// passes reports whether the client's field of this name goes upstream as it is.
func (r *RequestRules) passes(name string, trusted bool) bool {
	var buf [64]byte
	folded := fold(buf[:0], name)
	if r.managed.has(folded) {
		return false
	}
	switch rule(folded) {
	case free:
		return true
	case guarded:
		return exact(name, folded)
	case claimed:
		return trusted && exact(name, folded)
	case baggage:
		return r.baggage && exact(name, folded)
	}
	return false
}

// share returns values such that an append by the one who gets them does not reach their owner.
func (r *RequestRules) share(values []string) []string {
	if r.clone {
		return slices.Clone(values)
	}
	return values[:len(values):len(values)]
}

// outbound is a header under construction. Its single values lie side by side in one slice.
type outbound struct {
	header http.Header
	values []string
}

func (o *outbound) put(name, value string) {
	o.values = append(o.values, value)
	n := len(o.values)
	o.header[name] = o.values[n-1 : n : n]
}

// connection sets the fields that are about the connection and the exchange on it.
func (o *outbound) connection(in *Inbound) {
	h := in.Header
	if te := h["Te"]; len(te) > 0 && !in.Upgrade && hasMember(te, "trailers") {
		o.put("Te", "trailers") // RFC 9110 §10.1.4: of all codings only this promise is end to end
	}
	if expect := h["Expect"]; len(expect) == 1 && strings.EqualFold(expect[0], "100-continue") && in.Content &&
		(in.ProtoMajor > 1 || in.ProtoMinor > 0) { // RFC 9110 §10.1.1: ignored in HTTP/1.0, and not sent where there is nothing to wait for
		o.put("Expect", "100-continue")
	}
	if in.Upgrade {
		o.put("Connection", "Upgrade")
		o.put("Upgrade", websocket)
	}
}

const websocket = "websocket"

// ErrUpgradeBody is returned for a WebSocket handshake with a body: 400. What follows it would be a request to one server and
// tunnelled bytes to another.
var ErrUpgradeBody = errors.New("upgrade request with a body")

// Upgrade returns the protocol that a request may switch to: "websocket" or none. Only an HTTP/1.1 GET that offers exactly that may
// (RFC 6455 §4.1, RFC 9110 §7.8); any other offer is as if not made.
func Upgrade(r *http.Request) (proto string, err error) {
	offer := r.Header["Upgrade"]
	if len(offer) != 1 || r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 ||
		!strings.EqualFold(trimOWS(offer[0]), websocket) || !hasMember(r.Header["Connection"], "upgrade") {
		return "", nil
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return "", ErrUpgradeBody
	}
	return websocket, nil
}

// Survey returns how many field lines h has and how many bytes they take in HTTP/1.1; and h itself, if a field in it may have the request
// answered otherwise than any other for its target: most have none, and who looks for one in nil finds that out for nothing.
func Survey(h http.Header) (fields, bytes int, special http.Header) {
	for name, values := range h {
		fields += len(values)
		for _, value := range values {
			bytes += len(name) + len(value) + len(": \r\n")
		}
		switch name {
		case "Cache-Control", "Pragma", "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Upgrade", "Via":
			special = h
		}
	}
	return fields, bytes, special
}

// OneLength reports whether Content-Length, where there is one, says one length. The server of net/http for HTTP/2 takes one that is none
// for 0, and the first of several; such a request is malformed (RFC 9110 §8.6, RFC 9113 §8.1.1).
func OneLength(h http.Header) bool {
	lengths := h["Content-Length"]
	for _, length := range lengths {
		if length == "" || length != lengths[0] || strings.Trim(length, "0123456789") != "" {
			return false
		}
	}
	return true
}

// EndsHere reports whether an OPTIONS request with this header may be forwarded no further (RFC 9110 §7.6.2).
func EndsHere(h http.Header) bool {
	left, ok := hopsLeft(h)
	return ok && left == 0
}

// CountHop takes one off the number of times that an OPTIONS request with this header may be forwarded, where it has one.
func CountHop(h http.Header) {
	if left, ok := hopsLeft(h); ok && left > 0 {
		h["Max-Forwards"] = []string{strconv.Itoa(left - 1)}
	}
}

// hopsLeft reads Max-Forwards, which is 1*DIGIT and has no upper bound; ours is the most that is told. It is not ok where there is none, or none that
// can be read.
func hopsLeft(h http.Header) (left int, ok bool) {
	const most = 1 << 30
	text := single(h["Max-Forwards"])
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		left = min(left*10+int(c-'0'), most)
	}
	return left, text != ""
}

// RequestID returns the id that a client gave its request in the field of that canonical name, or "" when it gave none, several, or one that is not safe
// to log, return and forward: 1 to 128 letters, digits and -._~:/+=@.
func RequestID(h http.Header, name string) string {
	const maxIDBytes = 128
	id := single(h[name])
	if len(id) > maxIDBytes || !only(id, isID) {
		return ""
	}
	return id
}

// CheckValue reports why a value could not be put into a field of requests. The error never holds it.
func CheckValue(value string) error {
	const maxValueBytes = 64 << 10
	switch {
	case len(value) > maxValueBytes:
		return fmt.Errorf("the value is longer than %d bytes", maxValueBytes)
	case value != strings.Trim(value, " \t"):
		return errors.New("the value begins or ends with white space")
	}
	for i := range len(value) {
		if c := value[i]; class[c]&isVisible == 0 && c != ' ' && c != '\t' {
			return errors.New("the value has a byte that is not visible ASCII")
		}
	}
	return nil
}
