package flight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
)

// zeros is a source of n bytes at no cost.
type zeros struct{ n int }

func (z *zeros) Read(p []byte) (int, error) {
	n := min(z.n, len(p))
	if z.n -= n; z.n == 0 {
		return n, io.EOF
	}
	return n, nil
}

// What a miss costs beyond its bytes: one flight, one reader, one chunk.
func BenchmarkMiss(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10} {
		for _, known := range []bool{true, false} {
			b.Run(fmt.Sprintf("size=%d/known=%t", size, known), func(b *testing.B) {
				length := int64(-1)
				if known {
					length = int64(size)
				}
				src := bytes.NewReader(make([]byte, size))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					src.Seek(0, io.SeekStart)
					f := New(Config{Length: length, Limit: 1 << 20})
					r, _ := f.Reader()
					if err := f.Fill(src); err != nil {
						b.Fatal(err)
					}
					if _, err := drainAll(r); err != nil {
						b.Fatal(err)
					}
					f.Body()
				}
			})
		}
	}
}

func BenchmarkStream(b *testing.B) {
	const size = 16 << 20
	for _, limit := range []int64{0, size} {
		for _, readers := range []int{1, 16} {
			b.Run(fmt.Sprintf("stored=%t/readers=%d", limit > 0, readers), func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					f := New(Config{Length: size, Limit: limit})
					var wg sync.WaitGroup
					for range readers {
						r, _ := f.Reader()
						wg.Go(func() { drainAll(r) })
					}
					if err := f.Fill(&zeros{size}); err != nil {
						b.Fatal(err)
					}
					wg.Wait()
				}
			})
		}
	}
}

func BenchmarkNext(b *testing.B) {
	const pieces = 1 << 10
	f := New(Config{Length: pieces * maxChunk, Limit: pieces * maxChunk})
	if err := f.Fill(&zeros{pieces * maxChunk}); err != nil {
		b.Fatal(err)
	}
	stop := make(chan struct{})
	r, _ := f.Reader()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(stop); errors.Is(err, io.EOF) {
			r.chunk, r.off, r.lent = 0, 0, 0
		}
	}
}

func drainAll(r *Reader) (n int, err error) {
	defer r.Close()
	for {
		p, err := r.Next(nil)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += len(p)
	}
}

// What a miss costs whose leader fills it alone.
func BenchmarkStep(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			src := bytes.NewReader(make([]byte, size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				src.Seek(0, io.SeekStart)
				f := New(Config{Length: int64(size), Limit: 1 << 20})
				f.Whole()
				if _, err := f.Step(src); !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
				if _, ok := f.Body(); !ok {
					b.Fatal()
				}
			}
		})
	}
}

// What it costs without a flight: a buffer and a list of one.
func BenchmarkBuffer(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			src := bytes.NewReader(make([]byte, size))
			var kept [][]byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				src.Seek(0, io.SeekStart)
				body := make([]byte, size)
				if _, err := io.ReadFull(src, body); err != nil {
					b.Fatal(err)
				}
				kept = [][]byte{body}
			}
			_ = kept
		})
	}
}
