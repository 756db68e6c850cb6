package forward

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// frame writes a frame out; its mask is 1, 2, 3, 4.
func frame(head byte, payload string, masked bool) string {
	b := []byte{head, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		return string(b) + payload
	}
	b[1] |= 0x80
	b = append(b, 1, 2, 3, 4)
	for i := range len(payload) {
		b = append(b, payload[i]^byte(i%4+1))
	}
	return string(b)
}

func down(head byte, payload string) string { return frame(head, payload, false) }
func up(head byte, payload string) string   { return frame(head, payload, true) }

// The examples of RFC 6455 §5.7.
const (
	hello       = "\x81\x05\x48\x65\x6c\x6c\x6f"
	helloMasked = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
	hel, lo     = "\x01\x03\x48\x65\x6c", "\x80\x02\x6c\x6f"
	ping        = "\x89\x05\x48\x65\x6c\x6c\x6f"
	pongMasked  = "\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
)

const (
	goingAway = "\x88\x02\x03\xe9"
	normal    = "\x88\x02\x03\xe8"
)

type frameCase struct {
	rule    string
	masked  bool
	stream  string
	edge    int // the last one
	within  int // bytes of an unfinished message before it
	broken  bool
	closing bool
	closed  bool
}

var frameCases = []frameCase{
	{rule: "§5.7 a text message", stream: hello, edge: 7},
	{rule: "§5.7 a masked text message", masked: true, stream: helloMasked, edge: 11},
	{rule: "§5.7 fragments", stream: hel + lo, edge: 9},
	{rule: "§5.7 the first fragment", stream: hel, edge: 5, within: 5},
	{rule: "§5.7 a ping", stream: ping, edge: 7},
	{rule: "§5.7 a masked pong", masked: true, stream: pongMasked, edge: 11},
	{rule: "§5.7 256 bytes", stream: "\x82\x7e\x01\x00" + strings.Repeat("x", 256), edge: 260},
	{rule: "§5.7 64 KiB", stream: "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + strings.Repeat("x", 1<<16), edge: 10 + 1<<16},
	{rule: "§5.2 an empty one", stream: "\x81\x00", edge: 2},
	{rule: "§5.2 an empty one, masked", masked: true, stream: "\x81\x80\x01\x02\x03\x04", edge: 6},
	{rule: "§5.2 reserved bits are an extension's", stream: "\xf1\x00" + "\xc2\x01x", edge: 5},
	{rule: "§5.2 reserved data opcode", stream: "\x83\x00", broken: true},
	{rule: "§5.2 reserved control opcode", stream: "\x8b\x00", broken: true},
	{rule: "§5.2 16 bits where 7 do", stream: "\x82\x7e\x00\x7d", broken: true},
	{rule: "§5.2 16 bits", stream: "\x82\x7e\x00\x7e" + strings.Repeat("x", 126), edge: 130},
	{rule: "§5.2 64 bits where 16 do", stream: "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", broken: true},
	{rule: "§5.2 the most significant bit", stream: "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", broken: true},
	{rule: "§5.2 the longest", stream: hello + "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffxyz", edge: 7},
	{rule: "§5.2 the longest, masked", masked: true, stream: helloMasked + "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff1234xyz", edge: 11},
	{rule: "§5.1 a client's without a mask", masked: true, stream: hello, broken: true},
	{rule: "§5.1 a server's with one", stream: helloMasked, broken: true},
	{rule: "§5.4 a control frame within a message", stream: hel + ping + lo, edge: 16},
	{rule: "§5.4 a message after one, in fragments", stream: hello + hel + ping + "\x00\x00", edge: 21, within: 14},
	{rule: "§5.4 a continuation of nothing", stream: lo, broken: true},
	{rule: "§5.4 a continuation of a message that ended", stream: hel + lo + lo, broken: true},
	{rule: "§5.4 a message within a message", stream: hel + hello, broken: true},
	{rule: "§5.5 a control frame of 125 bytes", stream: down(0x89, strings.Repeat("x", 125)), edge: 127},
	{rule: "§5.5 a control frame of 126 bytes", stream: down(0x89, strings.Repeat("x", 126)), broken: true},
	{rule: "§5.5 a control frame in fragments", stream: "\x09\x00", broken: true},
	{rule: "§5.5.1 a close without a status", stream: hello + "\x88\x00", edge: 7, closing: true, closed: true},
	{rule: "§5.5.1 a close within a message", stream: hel + goingAway, edge: 5, within: 5, closing: true, closed: true},
	{rule: "§5.5.1 a close that has begun", stream: hello + "\x88", edge: 7, closing: true},
	{rule: "§5.5.1 nothing after a close counts", stream: goingAway + "GET / HTTP/1.1", closing: true, closed: true},
	{rule: "no frames", stream: "ping", broken: true},
	{rule: "half a frame", stream: hello + "\x81\x05He", edge: 7},
	{rule: "half a header", stream: hello + "\x81", edge: 7},
	{rule: "half a length", stream: hello + "\x81\x7e\x01", edge: 7},
	{rule: "half a mask", masked: true, stream: helloMasked + "\x81\x80\x01\x02", edge: 11},
}

// RFC 6455.
func TestFrames(t *testing.T) {
	for _, c := range frameCases {
		t.Run(c.rule, func(t *testing.T) {
			f := frames{masked: c.masked}
			message, edge := f.scan([]byte(c.stream))
			assert.Equal(t, c.broken, f.broken)
			assert.Equal(t, c.closing, f.closing)
			assert.Equal(t, c.closed, f.closed)
			if !c.broken {
				assert.Equal(t, c.edge, edge)
				assert.Equal(t, c.edge-c.within, message)
			}
		})
	}
}

// read is what a parser that has a whole stream before it makes of it, frame by frame.
type read struct {
	edges   map[int]bool // false: within a message
	closeAt int          // where a Close begins; -1
	closed  int          // where it ends; -1
	broken  int          // the byte that cannot be; -1
}

func readFrames(s []byte, masked bool) read {
	r := read{edges: map[int]bool{0: true}, closeAt: -1, closed: -1, broken: -1}
	message := false
	for at := 0; at < len(s); {
		opcode, fin, control := s[at]&15, s[at] >= 128, s[at]&8 != 0
		if !map[byte]bool{0: true, 1: true, 2: true, 8: true, 9: true, 10: true}[opcode] ||
			control && !fin || !control && (opcode == 0) != message {
			r.broken = at
			return r
		}
		if opcode == 8 {
			r.closeAt = at
		}
		if !control {
			message = !fin
		}
		if at+1 == len(s) {
			return r
		}
		short := uint64(s[at+1] & 127)
		if (s[at+1] >= 128) != masked || control && short > 125 {
			r.broken = at + 1
			return r
		}
		wide := map[uint64]int{126: 2, 127: 8}[short]
		if len(s) < at+2+wide {
			return r
		}
		length := short
		if wide > 0 {
			length = binary.BigEndian.Uint64(append(make([]byte, 8-wide), s[at+2:at+2+wide]...))
			if length < 126 || wide == 8 && (length < 65536 || length >= 1<<63) {
				r.broken = at + 1 + wide
				return r
			}
		}
		rest := uint64(2 + wide)
		if masked {
			rest += 4
		}
		if uint64(len(s)-at) < rest || uint64(len(s)-at)-rest < length {
			return r
		}
		at += int(rest + length)
		if opcode == 8 {
			r.closed = at
			return r
		}
		r.edges[at] = !message
	}
	return r
}

// Frames are found where a slow reader finds them, however the stream is cut to pieces.
func FuzzFrames(f *testing.F) {
	for _, c := range frameCases {
		stream := []byte(c.stream)
		f.Add(stream[:min(len(stream), 512)], c.masked, []byte{1})
		f.Add(stream[:min(len(stream), 512)], c.masked, []byte{3, 0, 200})
	}
	f.Fuzz(func(t *testing.T, stream []byte, masked bool, cuts []byte) {
		want := readFrames(stream, masked)
		tracker := frames{masked: masked}
		for begin, i := 0, 0; begin < len(stream); i++ {
			end := len(stream)
			if len(cuts) > 0 && i < 1<<12 {
				end = min(end, begin+max(1, int(cuts[i%len(cuts)])))
			}
			message, edge := tracker.scan(stream[begin:end])
			require.Equal(t, want.broken >= 0 && want.broken < end, tracker.broken, "broken by %d", end)
			if tracker.broken {
				require.False(t, tracker.open())
				return
			}
			wantMessage, wantEdge := -1, -1
			for at := begin; at <= end; at++ {
				whole, ok := want.edges[at]
				if ok {
					wantEdge = at - begin
				}
				if whole {
					wantMessage = wantEdge
				}
			}
			require.Equal(t, wantMessage, message, "message of %d to %d", begin, end)
			require.Equal(t, wantEdge, edge, "edge of %d to %d", begin, end)
			require.Equal(t, want.closeAt >= 0 && want.closeAt < end, tracker.closing, "closing by %d", end)
			require.Equal(t, want.closed >= 0 && want.closed <= end, tracker.closed, "closed by %d", end)
			begin = end
		}
	})
}

func TestCloseFrame(t *testing.T) {
	assert.Equal(t, goingAway, string(closeFrame(wsGoingAway, false)), "RFC 6455 §5.1: a server does not mask")
	masks := make(map[string]bool)
	for range 8 {
		b := closeFrame(wsGoingAway, true)
		require.Len(t, b, 8)
		assert.Equal(t, "\x88\x82", string(b[:2]))
		mask := b[2:6]
		assert.Equal(t, []byte{0x03, 0xe9}, []byte{b[6] ^ mask[0], b[7] ^ mask[1]}, "RFC 6455 §5.3")
		masks[string(mask)] = true
	}
	assert.Greater(t, len(masks), 1, "RFC 6455 §5.3: a new mask for each")
}

func TestFramesMakeNoAllocations(t *testing.T) {
	stream := bytes.Repeat([]byte(hello), 100)
	var f frames
	assert.Zero(t, testing.AllocsPerRun(100, func() { f.scan(stream) }))
}

func BenchmarkFrames(b *testing.B) {
	for _, c := range []struct{ name, stream string }{
		{"small", strings.Repeat(hello, 8<<10/len(hello))},
		{"large", strings.Repeat(down(0x82, strings.Repeat("x", 4<<10-4)), 2)},
	} {
		b.Run("frames="+c.name, func(b *testing.B) {
			stream := []byte(c.stream)
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			var f frames
			for b.Loop() {
				if message, _ := f.scan(stream); message != len(stream) {
					b.Fatal("lost")
				}
			}
		})
	}
}
