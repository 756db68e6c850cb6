package flight

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pattern repeats at no multiple of a chunk.
var pattern = body(65521)

// endless is a source of n bytes of the pattern, n < 0: without end.
type endless struct{ off, n int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.n >= 0 {
		p = p[:min(int64(len(p)), e.n-e.off)]
	}
	n := copy(p, pattern[e.off%int64(len(pattern)):])
	e.off += int64(n)
	if e.off == e.n {
		return n, io.EOF
	}
	return n, nil
}

// Once a body is too long to be stored, the fill stays within the window of the
// slowest reader, and catches up as that one reads or leaves.
func TestFillWaitsForTheSlowestReader(t *testing.T) {
	for _, c := range []Config{
		{Length: -1, Limit: 0, Window: 1},
		{Length: -1, Limit: 0, Window: 1000},
		{Length: -1, Limit: 0, Window: 100_000},
		{Length: -1, Limit: 0},
		{Length: -1, Limit: 10_000},
		{Length: -1, Limit: 1 << 20, Window: 100_000},
		{Length: 10 << 20, Limit: 1 << 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			window := c.Window
			if window == 0 {
				window = defaultWindow
			}
			l := &ledger{}
			f := l.flight(c)
			fast, slow := join(t, f), join(t, f)
			src := &counted{Reader: &endless{n: -1}}
			done := make(chan error, 1)
			go func() { done <- f.Fill(src) }()
			var last atomic.Int64 // where the fast one leaves; 0: not yet
			go func() {
				defer fast.Close()
				for n := int64(0); last.Load() == 0 || n < last.Load(); {
					p, err := fast.Next(nil)
					if err != nil {
						return
					}
					n += int64(len(p))
				}
			}()
			bound := max(window, c.Limit)
			if c.Length > c.Limit {
				bound = window
			}
			var read int64
			for range 40 {
				synctest.Wait() // everybody waits for the slow reader
				assert.LessOrEqual(t, src.n.Load()-read, bound+1, "one byte may be probed")
				p, err := slow.Next(nil)
				require.NoError(t, err)
				synctest.Wait()
				assert.LessOrEqual(t, src.n.Load()-read, bound+1, "it still holds them")
				want := make([]byte, len(p))
				io.ReadFull(&endless{off: read, n: -1}, want)
				require.True(t, bytes.Equal(want, p), "wrong bytes at %d", read)
				read += int64(len(p))
			}
			last.Store(src.n.Load() + min(1<<20, 20*window))
			slow.Close()
			require.Equal(t, ErrNoReaders, <-done)
			assert.GreaterOrEqual(t, src.n.Load(), last.Load(), "the fill went on when the slow one left")
			assert.Zero(t, l.held.Load())
		})
	}
}

// A stored body waits for nobody.
func TestFillOfAStoredBodyDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4 << 20
		f := New(Config{Length: size, Limit: size})
		r := join(t, f)
		require.NoError(t, f.Fill(&endless{n: size}))
		got, err := drain(r)
		require.NoError(t, err)
		assert.Len(t, got, size)
	})
}

func TestNobodyReads(t *testing.T) {
	t.Parallel()
	t.Run("what can be stored is read to its end", func(t *testing.T) {
		t.Parallel()
		f := New(Config{Length: -1, Limit: 100})
		r := join(t, f)
		r.Close()
		require.NoError(t, f.Fill(bytes.NewReader(body(100))))
		_, ok := f.Body()
		assert.True(t, ok)
	})
	t.Run("what cannot is not begun", func(t *testing.T) {
		t.Parallel()
		src := &counted{Reader: &endless{n: -1}}
		f := New(Config{Length: 101, Limit: 100})
		require.Equal(t, ErrNoReaders, f.Fill(src))
		assert.Zero(t, src.n.Load())
	})
	t.Run("what turns out too long ends there", func(t *testing.T) {
		t.Parallel()
		l := &ledger{}
		src := &counted{Reader: &endless{n: -1}}
		f := l.flight(Config{Length: -1, Limit: 100})
		require.Equal(t, ErrNoReaders, f.Fill(src))
		assert.EqualValues(t, 101, src.n.Load())
		assert.Zero(t, l.held.Load())
	})
}

// The last reader's leaving cancels a source that is blocked, and nothing else does.
func TestUnread(t *testing.T) {
	tests := []struct {
		name  string
		limit int64
		want  int64
	}{
		{"stored", 1000, 0},
		{"not stored", 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				src, w := io.Pipe()
				f := New(Config{Length: -1, Limit: tt.limit, Unread: func() {
					calls.Add(1)
					w.CloseWithError(errSource)
				}})
				a, b := join(t, f), join(t, f)
				done := make(chan error, 1)
				go func() { done <- f.Fill(src) }()
				w.Write(body(10))
				synctest.Wait()
				a.Close()
				assert.Zero(t, calls.Load())
				b.Close()
				b.Close()
				assert.Equal(t, tt.want, calls.Load())
				if tt.want == 0 {
					w.Close()
					require.NoError(t, <-done)
					_, ok := f.Body()
					assert.True(t, ok)
					return
				}
				require.Equal(t, ErrNoReaders, <-done)
				_, ok := f.Reader()
				assert.False(t, ok)
			})
		})
	}
}

// What is reserved never exceeds what was asked for, and shrinks as readers pass.
func TestReservationShrinksAsReadersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 256 << 10
		l := &ledger{}
		f := l.flight(Config{Length: -1, Limit: limit, Window: 64 << 10})
		r := join(t, f)
		done := make(chan error, 1)
		go func() { done <- f.Fill(&endless{n: 1 << 20}) }()
		synctest.Wait()
		require.EqualValues(t, limit, l.held.Load())
		last := l.held.Load()
		for read := 0; ; {
			p, err := r.Next(nil)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			synctest.Wait()
			now := l.held.Load()
			assert.LessOrEqual(t, now, last)
			assert.Equal(t, max(0, limit-int64(read)), now)
			last, read = now, read+len(p)
		}
		assert.Zero(t, l.held.Load())
		r.Close()
		require.NoError(t, <-done)
	})
}

// An endless body streams in constant memory, without garbage.
func TestEndlessBodyDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		return
	}
	f := New(Config{Length: -1, Limit: 0})
	r := join(t, f)
	done := make(chan error, 1)
	go func() { done <- f.Fill(&endless{n: -1}) }()
	read := func(n int) {
		for n > 0 {
			p, err := r.Next(nil)
			require.NoError(t, err)
			n -= len(p)
		}
	}
	read(4 << 20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read(64 << 20)
	runtime.ReadMemStats(&after)
	r.Close()
	require.Equal(t, ErrNoReaders, <-done)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "garbage of 64 MiB")
}

func TestNextDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		return
	}
	const size = 200 * maxChunk
	f := New(Config{Length: size, Limit: size})
	r := join(t, f)
	require.NoError(t, f.Fill(&endless{n: size}))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := r.Next(nil); err != nil {
			panic(err)
		}
	}))
}

// Many readers at different paces, some leaving, some joining late: each gets
// the right bytes, and every reserved byte comes back.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		size := rnd.Int64N(2 << 20)
		c := Config{Length: size, Limit: rnd.Int64N(3 << 20), Window: 1<<10 + rnd.Int64N(300<<10)}
		if rnd.IntN(2) == 0 {
			c.Length = -1
		}
		l := &ledger{max: rnd.Int64N(4 << 20)}
		f := l.flight(c)
		whole, _ := io.ReadAll(&endless{n: size})
		var wg sync.WaitGroup
		var wrong atomic.Int64
		follow := func(r *Reader, rnd *rand.Rand) {
			defer r.Close()
			leave := int64(-1)
			if rnd.IntN(3) == 0 {
				leave = rnd.Int64N(size + 1)
			}
			for n := int64(0); leave < 0 || n < leave; {
				p, err := r.Next(nil)
				if errors.Is(err, io.EOF) && n == size {
					return
				}
				if err != nil || !bytes.HasPrefix(whole[n:], p) {
					wrong.Add(1)
					return
				}
				if rnd.IntN(4) == 0 {
					runtime.Gosched()
				}
				n += int64(len(p))
			}
		}
		for i := range uint64(16) {
			r := join(t, f)
			wg.Go(func() { follow(r, rand.New(rand.NewPCG(seed, i))) })
		}
		wg.Go(func() {
			for i := range uint64(16) {
				if r, ok := f.Reader(); ok {
					wg.Go(func() { follow(r, rand.New(rand.NewPCG(seed, 100+i))) })
				}
				runtime.Gosched()
			}
		})
		src := &endless{n: size}
		err := f.Fill(readFunc(func(p []byte) (int, error) {
			return src.Read(p[:1+rnd.IntN(len(p))])
		}))
		if !errors.Is(err, ErrNoReaders) {
			require.NoError(t, err)
		}
		if _, ok := f.Body(); ok {
			l.release(size)
		}
		wg.Wait()
		require.Zero(t, wrong.Load(), "seed %d", seed)
		require.Zero(t, l.held.Load(), "seed %d", seed)
		require.LessOrEqual(t, l.most.Load(), l.max)
	}
}

// Ten thousand wait for one byte; all get it, and at the same instant.
func TestStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const readers = 10_000
		f := New(Config{Length: 3, Limit: 3})
		var right atomic.Int64
		start := time.Now()
		for range readers {
			r := join(t, f)
			go func() {
				if got, err := drain(r); err == nil && string(got) == "abc" && time.Since(start) == 3*time.Second {
					right.Add(1)
				}
			}()
		}
		require.Equal(t, readers, f.Readers())
		require.NoError(t, f.Fill(trickle{&dataEOF{s: "abc"}}))
		synctest.Wait()
		assert.EqualValues(t, readers, right.Load())
		assert.Zero(t, f.Readers())
	})
}

// dataEOF ends with its last byte.
type dataEOF struct{ s string }

func (d *dataEOF) Read(p []byte) (n int, err error) {
	n = copy(p, d.s)
	if d.s = d.s[n:]; d.s == "" {
		err = io.EOF
	}
	return n, err
}
