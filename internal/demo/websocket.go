package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 §4.2.2 asks for it; it keeps no secret
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// As much of RFC 6455 as an echo needs, on both sides: frames of up to 64 KiB,
// each taken for itself.

// Opcodes, RFC 6455 §5.2.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

const (
	finBit         = 0x80
	maskBit        = 0x80
	extended16     = 126 // the length is in the next two bytes
	maxFrameLength = 1<<16 - 1
)

var (
	errFrameTooLong = errors.New("the frame is longer than 64 KiB")
	errNoHandshake  = errors.New("not a WebSocket handshake")
)

// frame is one frame. The upper bits of head are FIN and the reserved ones.
type frame struct {
	head    byte
	payload []byte
}

func (f *frame) opcode() byte { return f.head & 0x0f }

// readFrame reads a frame and takes its mask off.
func readFrame(r io.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := int(head[1] &^ maskBit)
	switch {
	case n == extended16:
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return frame{}, err
		}
		n = int(binary.BigEndian.Uint16(length[:]))
	case n > extended16:
		return frame{}, errFrameTooLong
	}
	var mask [4]byte
	if head[1]&maskBit != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return frame{}, err
		}
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return frame{}, err
	}
	applyMask(payload, mask)
	return frame{head[0], payload}, nil
}

// writeFrame writes a frame, masked if a client sends it (RFC 6455 §5.3).
func writeFrame(w io.Writer, f frame, masked bool) error {
	if len(f.payload) > maxFrameLength {
		return errFrameTooLong
	}
	b := []byte{f.head, byte(len(f.payload))}
	if len(f.payload) >= extended16 {
		b[1] = extended16
		b = binary.BigEndian.AppendUint16(b, uint16(len(f.payload)))
	}
	var mask [4]byte
	if masked {
		b[1] |= maskBit
		_, _ = rand.Read(mask[:])
		b = append(b, mask[:]...)
	}
	begin := len(b)
	b = append(b, f.payload...)
	applyMask(b[begin:], mask)
	_, err := w.Write(b)
	return err
}

func applyMask(payload []byte, mask [4]byte) {
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
}

// acceptKey proves that the handshake was understood (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// echo accepts a WebSocket and sends back what it is sent.
func echo(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket", http.StatusUpgradeRequired)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server cannot", http.StatusNotImplemented)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(r.Context(), func() { conn.Close() })()
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(key))
	for err == nil {
		err = echoFrame(conn, buffered)
	}
}

// echoFrame answers one frame. A close frame is the last: its error is io.EOF.
func echoFrame(w io.Writer, r io.Reader) error {
	f, err := readFrame(r)
	if err != nil {
		return err
	}
	switch f.opcode() {
	case opPong:
		return nil
	case opPing:
		f.head = finBit | opPong
	case opClose:
		_ = writeFrame(w, f, false)
		return io.EOF
	}
	return writeFrame(w, f, false)
}

// webSocket is the client's end.
type webSocket struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialWebSocket opens a WebSocket. Its connection is closed when ctx ends, or
// by its user.
func dialWebSocket(ctx context.Context, addr, path string) (*webSocket, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	ws := &webSocket{conn, bufio.NewReader(conn)}
	if err := ws.handshake(addr, path); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ws, nil
}

func (ws *webSocket) handshake(addr, path string) error {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	_, err := fmt.Fprintf(ws.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, addr, key)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(ws.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) {
		return fmt.Errorf("%w: %s", errNoHandshake, resp.Status)
	}
	return nil
}

// ask sends a frame and returns the next that comes back.
func (ws *webSocket) ask(opcode byte, text string) (frame, error) {
	if err := writeFrame(ws.conn, frame{finBit | opcode, []byte(text)}, true); err != nil {
		return frame{}, err
	}
	return readFrame(ws.in)
}
