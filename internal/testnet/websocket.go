package testnet

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 prescribes it
	"encoding/base64"
	"io"
	"strings"
)

// The example pair of RFC 6455 §1.3.
const (
	WebSocketKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	WebSocketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// WebSocket writes out an opening handshake with WebSocketKey (RFC 6455 §4.1); the response to it must hold WebSocketAccept.
func WebSocket(target string, fields ...string) string {
	return Get(target, append([]string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + WebSocketKey,
	}, fields...)...)
}

// AcceptWebSocket reads a request and, if it is an opening handshake, answers 101: what follows in both directions is a tunnel's.
// Anything else is answered 426, and false returned.
func (c *Conn) AcceptWebSocket() bool {
	r := c.ReadRequest()
	if r == nil {
		return false
	}
	key := r.Header.Get("Sec-Websocket-Key")
	if r.Method != "GET" || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		c.Send(Answer(426, "Connection: close\r\nUpgrade: websocket", ""))
		return false
	}
	c.up.setTunnel(c)
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return c.Send(Answer(101, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+
		base64.StdEncoding.EncodeToString(sum[:]), ""))
}

// EchoWebSocket is a script: a handshake, then every byte is sent back, frames or not, until the client ends its half.
func EchoWebSocket(c *Conn) {
	if c.AcceptWebSocket() {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
}
