package h1

import "sync"

const (
	bufferSize  = 64 << 10 // most responses, head and content, in one read
	messageSize = 16 << 10 // a request's head, and a short content
)

type (
	buffer        = [bufferSize]byte
	messageBuffer = [messageSize]byte
)

var (
	spareBuffers  = sync.Pool{New: func() any { return new(buffer) }}
	spareMessages = sync.Pool{New: func() any { return new(messageBuffer) }}
)

// buffers keeps a few buffers of a client for good: a collector that runs
// often, as it does where little memory is in use, would empty a [sync.Pool] as
// often, and a buffer that is made anew has to be cleared. Its zero value is
// ready; nil keeps none.
type buffers struct {
	mu   sync.Mutex
	kept [keptBuffers]*buffer
	n    int
}

// keptBuffers is more than how many requests read at a time, on most machines:
// nobody holds a buffer while waiting.
const keptBuffers = 16

func (b *buffers) get() *buffer {
	if b != nil {
		b.mu.Lock()
		if b.n > 0 {
			b.n--
			buf := b.kept[b.n]
			b.mu.Unlock()
			return buf
		}
		b.mu.Unlock()
	}
	return spareBuffers.Get().(*buffer)
}

func (b *buffers) put(buf *buffer) {
	if b != nil {
		b.mu.Lock()
		if b.n < keptBuffers {
			b.kept[b.n] = buf
			b.n++
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
	}
	spareBuffers.Put(buf)
}
