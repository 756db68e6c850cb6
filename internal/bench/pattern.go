package main

import (
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
)

// pattern is so many bytes that repeat after an odd number only: what is lost,
// doubled or moved changes the checksum.
type pattern struct {
	left int64
	at   int // in period
}

var period = sync.OnceValue(func() []byte {
	b := make([]byte, 1_000_003)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
})

func newPattern(n int64) *pattern { return &pattern{left: n} }

// next returns the next bytes, at most so many; none at the end.
func (p *pattern) next(most int) []byte {
	b := period()[p.at:]
	b = b[:min(int64(len(b)), int64(most), p.left)]
	p.left -= int64(len(b))
	p.at = (p.at + len(b)) % len(period())
	return b
}

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	return copy(b, p.next(len(b))), nil
}

type checksum struct{ hash.Hash32 }

func newChecksum() checksum { return checksum{crc32.New(crc32.MakeTable(crc32.Castagnoli))} }

func (c checksum) String() string { return fmt.Sprintf("%08x", c.Sum32()) }
