package forward

import (
	"crypto/rand"
	"encoding/binary"
)

// Bits and opcodes of a frame's header (RFC 6455 §5.2).
const (
	wsFin          = 0x80
	wsMask         = 0x80
	wsOpcode       = 0x0f
	wsContinuation = 0x0
	wsBinary       = 0x2
	wsClose        = 0x8
	wsPong         = 0xa

	wsMaskBytes  = 4
	wsMaxControl = 125 // bytes that a control frame carries (RFC 6455 §5.5)
	wsLength16   = 126 // the length is in the next two bytes
	wsLength64   = 127 // or in the next eight
)

// wsGoingAway is the status of an endpoint that is about to go away (RFC 6455 §7.4.1).
const wsGoingAway = 1001

// frames follows the frames of one direction of a WebSocket through the pieces in which they pass, and keeps none of their bytes. What the reserved
// bits say is an extension's matter.
type frames struct {
	masked  bool // they come from the client (RFC 6455 §5.1)
	broken  bool // these are no frames; nothing is followed any more
	closing bool // a Close has begun, after which there is nothing (RFC 6455 §5.5.1)
	closed  bool // it has passed; nothing is followed any more

	unfinished bool   // the message goes on with the next data frame
	control    bool   // the frame is one
	seen       uint8  // bytes of its header so far, without the mask
	extra      uint8  // bytes of its extended length to come
	length     uint64 // of it so far
	left       uint64 // bytes to come of its mask and payload
}

// scan goes on by p. It returns the last places in p where a message ends and where a frame does, and another frame may be put in, which control
// frames may also within a message (RFC 6455 §5.4); -1: there is none. A Close has them before it.
func (f *frames) scan(p []byte) (message, edge int) {
	message, edge = -1, -1
	for i := 0; ; {
		switch {
		case f.open():
			edge = i
			if !f.unfinished {
				message = i
			}
		case f.closing && f.between():
			f.closed = true
		}
		if i == len(p) || f.broken || f.closed {
			return message, edge
		}
		switch {
		case f.left > 0:
			n := min(f.left, uint64(len(p)-i))
			f.left -= n
			i += int(n)
			continue
		case f.seen == 0:
			f.first(p[i])
		case f.seen == 1:
			f.second(p[i])
		default:
			f.extend(p[i])
		}
		i++
	}
}

// open reports whether a frame may be put in.
func (f *frames) open() bool { return f.between() && !f.closing && !f.broken }

func (f *frames) between() bool { return f.seen == 0 && f.left == 0 }

func (f *frames) first(b byte) {
	f.seen = 1
	opcode, fin := b&wsOpcode, b&wsFin != 0
	switch {
	case opcode >= wsClose && opcode <= wsPong:
		f.control, f.closing = true, opcode == wsClose
		f.broken = !fin // RFC 6455 §5.5: not fragmented
	case opcode <= wsBinary:
		f.control = false
		f.broken = f.unfinished != (opcode == wsContinuation) // RFC 6455 §5.4
		f.unfinished = !fin
	default:
		f.broken = true // RFC 6455 §5.2: reserved
	}
}

func (f *frames) second(b byte) {
	f.seen, f.length = 2, 0
	n := b &^ wsMask
	switch {
	case (b&wsMask != 0) != f.masked, // RFC 6455 §5.1
		f.control && n > wsMaxControl: // RFC 6455 §5.5
		f.broken = true
	case n == wsLength16:
		f.extra = 2
	case n == wsLength64:
		f.extra = 8
	default:
		f.payload(uint64(n))
	}
}

func (f *frames) extend(b byte) {
	f.length = f.length<<8 | uint64(b)
	f.seen++
	if f.extra--; f.extra > 0 {
		return
	}
	least := uint64(wsLength16)
	if f.seen > 4 {
		least = 1 << 16
	}
	if f.length < least || f.length>>63 != 0 { // RFC 6455 §5.2: in the fewest bytes, the most significant bit 0
		f.broken = true
		return
	}
	f.payload(f.length)
}

// payload ends the header.
func (f *frames) payload(length uint64) {
	f.seen, f.left = 0, length
	if f.masked {
		f.left += wsMaskBytes
	}
}

// closeFrame returns a Close with a status and no reason (RFC 6455 §5.5.1), with a mask nobody can foresee if it is for a server (§5.3).
func closeFrame(status uint16, masked bool) []byte {
	b := []byte{wsFin | wsClose, 2}
	if !masked {
		return binary.BigEndian.AppendUint16(b, status)
	}
	var mask [wsMaskBytes]byte
	_, _ = rand.Read(mask[:]) // never fails
	b[1] |= wsMask
	b = append(b, mask[:]...)
	return append(b, byte(status>>8)^mask[0], byte(status)^mask[1])
}
