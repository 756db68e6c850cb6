package flight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a budget that knows whether it was cheated.
type ledger struct {
	held, most atomic.Int64
	max        int64 // 0: no bound
}

func (l *ledger) reserve(n int64) bool {
	held := l.held.Add(n)
	if l.max > 0 && held > l.max {
		l.held.Add(-n)
		return false
	}
	for m := l.most.Load(); held > m && !l.most.CompareAndSwap(m, held); m = l.most.Load() {
	}
	return true
}

func (l *ledger) release(n int64) { l.held.Add(-n) }

func (l *ledger) flight(c Config) *Flight {
	c.Reserve, c.Release = l.reserve, l.release
	return New(c)
}

// body returns n bytes that no other offset repeats soon.
func body(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// drain reads to the end and closes.
func drain(r *Reader) ([]byte, error) {
	defer r.Close()
	var got []byte
	for {
		p, err := r.Next(nil)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, p...)
	}
}

func join(t *testing.T, f *Flight) *Reader {
	t.Helper()
	r, ok := f.Reader()
	require.True(t, ok)
	return r
}

// trickle lets one byte through each second.
type trickle struct{ io.Reader }

func (s trickle) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Reader.Read(p[:min(1, len(p))])
}

// counted knows how many bytes were taken from it.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

var errSource = errors.New("source failed")

// begin publishes bytes of a body that is kept, as if a source had sent them and
// then waited.
func begin(t *testing.T, f *Flight, p []byte) {
	t.Helper()
	require.True(t, len(f.tail) > 0 || f.keep())
	require.NoError(t, f.publish(copy(f.tail, p)))
}

// TestBody has one row for each way that a body can end. Each runs with sources
// of different manners, read along and read by nobody.
func TestBody(t *testing.T) {
	t.Parallel()
	const big = 1 << 30
	tests := []struct {
		name          string
		length, limit int64 // length: what was promised
		size          int   // what comes
		fail          error // and then
		budget        int64
		want          error // of Fill and readers
		stored        bool
	}{
		{name: "known", length: 100_000, limit: big, size: 100_000, stored: true},
		{name: "known, empty", length: 0, limit: big, size: 0, stored: true},
		{name: "known, one byte", length: 1, limit: 1, size: 1, stored: true},
		{name: "known, whole chunks", length: 2 * maxChunk, limit: big, size: 2 * maxChunk, stored: true},
		{name: "known, as long as the limit", length: 5000, limit: 5000, size: 5000, stored: true},
		{name: "known, above the limit", length: 5001, limit: 5000, size: 5001},
		{name: "known, short", length: 5000, limit: big, size: 4999, want: io.ErrUnexpectedEOF},
		{name: "known, nothing came", length: 5000, limit: big, size: 0, want: io.ErrUnexpectedEOF},
		{name: "known, surplus", length: 5000, limit: big, size: 5001, want: ErrSurplus},
		{name: "known, surplus to nothing", length: 0, limit: big, size: 1, want: ErrSurplus},
		{name: "known, surplus above the limit", length: 5000, limit: 10, size: 9000, want: ErrSurplus},
		{name: "known, short above the limit", length: 5000, limit: 10, size: 4000, want: io.ErrUnexpectedEOF},
		{name: "known, error", length: 5000, limit: big, size: 3000, fail: errSource, want: errSource},
		{name: "known, error after all bytes", length: 5000, limit: big, size: 5000, fail: errSource, want: errSource},
		{name: "known, no budget", length: 200_000, limit: big, size: 200_000, budget: 100_000},
		{name: "unknown", length: -1, limit: big, size: 100_000, stored: true},
		{name: "unknown, any negative", length: -7, limit: big, size: 10, stored: true},
		{name: "unknown, empty", length: -1, limit: big, size: 0, stored: true},
		{name: "unknown, empty, nothing may be kept", length: -1, limit: 0, size: 0, stored: true},
		{name: "unknown, nothing may be kept", length: -1, limit: 0, size: 1},
		{name: "unknown, negative limit", length: -1, limit: -5, size: 3},
		{name: "unknown, a whole chunk", length: -1, limit: big, size: minChunk, stored: true},
		{name: "unknown, as long as the limit", length: -1, limit: 5000, size: 5000, stored: true},
		{name: "unknown, one above the limit", length: -1, limit: 5000, size: 5001},
		{name: "unknown, far above the limit", length: -1, limit: 5000, size: 400_000},
		{name: "unknown, error", length: -1, limit: big, size: 70_000, fail: errSource, want: errSource},
		{name: "unknown, error that wraps the end", length: -1, limit: big, size: 10, fail: fmt.Errorf("tls: %w", io.EOF), want: io.ErrUnexpectedEOF},
		{name: "known, error that wraps the end", length: 10, limit: big, size: 10, fail: fmt.Errorf("tls: %w", io.EOF), want: io.ErrUnexpectedEOF},
		{name: "unknown, error above the limit", length: -1, limit: 10, size: 70_000, fail: errSource, want: errSource},
		{name: "unknown, no budget", length: -1, limit: big, size: 100_000, budget: 20_000},
		{name: "unknown, no budget at all", length: -1, limit: big, size: 100_000, budget: 1},
		{name: "unknown, exactly the budget", length: -1, limit: big, size: 8 << 10, budget: 8 << 10, stored: true},
	}
	manners := []struct {
		name string
		wrap func(io.Reader) io.Reader
	}{
		{"plain", func(r io.Reader) io.Reader { return r }},
		{"error with data", iotest.DataErrReader},
		{"half", iotest.HalfReader},
		{"empty reads", func(r io.Reader) io.Reader {
			n := 0
			return readFunc(func(p []byte) (int, error) {
				if n++; n%5 != 0 {
					return 0, nil
				}
				return r.Read(p)
			})
		}},
	}
	for _, tt := range tests {
		for _, m := range manners {
			for _, readers := range []int{0, 1, 3, -1, -2} { // below zero: as many, and filled by steps
				steps := readers < 0
				readers := max(readers, -readers-1)
				t.Run(strings.Join([]string{tt.name, m.name}, "/"), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						whole := body(tt.size)
						end := tt.fail
						if end == nil {
							end = io.EOF
						}
						src := m.wrap(io.MultiReader(bytes.NewReader(whole), iotest.ErrReader(end)))
						l := &ledger{max: tt.budget}
						f := l.flight(Config{Length: tt.length, Limit: tt.limit})
						steps := steps && f.Whole()
						type result struct {
							got []byte
							err error
						}
						results := make(chan result, readers)
						open := make([]*Reader, readers)
						for i := range open { // all, before one of them passes the first chunk
							open[i] = join(t, f)
						}
						for _, r := range open {
							go func() {
								got, err := drain(r)
								results <- result{got, err}
							}()
						}
						var err error
						if steps {
							err = stepThrough(t, f, src, whole)
						} else {
							err = f.Fill(src)
						}
						pieces, ok := f.Body()
						for range readers {
							r := <-results
							assert.Equal(t, tt.want, r.err)
							if errors.Is(tt.want, ErrSurplus) {
								whole = whole[:tt.length]
							}
							assert.True(t, bytes.Equal(whole, r.got), "a reader got %d bytes of %d", len(r.got), len(whole))
						}
						assert.Equal(t, tt.stored, ok)
						if readers == 0 && !tt.stored && errors.Is(err, ErrNoReaders) {
							err = tt.want // nobody was left to find out
						}
						assert.Equal(t, tt.want, err)
						if ok {
							assert.True(t, bytes.Equal(whole, bytes.Join(pieces, nil)))
							assert.EqualValues(t, tt.size, l.held.Load(), "the reservation is as long as the body")
							for _, p := range pieces {
								assert.NotEmpty(t, p)
								assert.LessOrEqual(t, cap(p), len(p)+len(p)/4+64, "no spare room is stored")
							}
							_, again := f.Body()
							assert.False(t, again, "Body gives away once")
							l.release(int64(tt.size))
						}
						assert.Zero(t, l.held.Load(), "reserved bytes left")
						assert.Zero(t, f.Readers())
					})
				})
			}
		}
	}
}

func TestBytesArriveAsTheyCome(t *testing.T) {
	for _, limit := range []int64{1 << 20, 0} {
		synctest.Test(t, func(t *testing.T) {
			f := New(Config{Length: -1, Limit: limit})
			r := join(t, f)
			start := time.Now()
			go f.Fill(trickle{strings.NewReader("abc")})
			for i, want := range []string{"a", "b", "c"} {
				p, err := r.Next(nil)
				require.NoError(t, err)
				assert.Equal(t, want, string(p))
				assert.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
			}
			_, err := r.Next(nil)
			assert.Equal(t, io.EOF, err)
			_, err = r.Next(nil)
			assert.Equal(t, io.EOF, err, "the end stays the end")
			r.Close()
		})
	}
}

// What a reader holds is not touched by bytes that come later.
func TestLentBytesDoNotChange(t *testing.T) {
	t.Parallel()
	f := New(Config{Length: -1, Limit: 1 << 20})
	r := join(t, f)
	begin(t, f, []byte("abc"))
	p, err := r.Next(nil)
	require.NoError(t, err)
	require.NoError(t, f.Fill(strings.NewReader(strings.Repeat("x", 10_000))))
	assert.Equal(t, "abc", string(p))
	assert.Equal(t, 3, cap(p), "appending must not reach the next bytes")
	rest, err := drain(r)
	require.NoError(t, err)
	assert.Len(t, rest, 10_000)
}

func TestReadWhole(t *testing.T) {
	t.Parallel()
	stalls := readFunc(func([]byte) (int, error) { return 0, nil })
	for _, row := range []struct {
		name string
		src  io.Reader
		want error
	}{
		{"as long as it should be", strings.NewReader("abc"), nil},
		{"its end beside its last byte", iotest.DataErrReader(strings.NewReader("abc")), nil},
		{"byte by byte", iotest.OneByteReader(strings.NewReader("abc")), nil},
		{"too short", strings.NewReader("ab"), io.ErrUnexpectedEOF},
		{"too long", strings.NewReader("abcd"), ErrSurplus},
		{"broken off", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(errSource)), errSource},
		{"broken behind its end", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errSource)), errSource},
		{"without an end", io.MultiReader(strings.NewReader("abc"), stalls), io.ErrNoProgress},
	} {
		p := make([]byte, 3)
		assert.Equal(t, row.want, ReadWhole(row.src, p), row.name)
		if row.want == nil {
			assert.Equal(t, "abc", string(p), row.name)
		}
	}
	require.NoError(t, ReadWhole(strings.NewReader(""), nil))
	assert.Equal(t, ErrSurplus, ReadWhole(strings.NewReader("a"), nil))
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Length: -1, Limit: 1 << 20})
		src, w := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- f.Fill(src) }()
		a, b, c := join(t, f), join(t, f), join(t, f)
		stop := make(chan struct{})
		got := make(chan string, 3)
		follow := func(r *Reader, stop chan struct{}) {
			p, err := r.Next(stop)
			if err != nil {
				p = []byte(err.Error())
			}
			got <- string(p)
		}
		go follow(a, nil)
		go follow(b, stop)
		go follow(c, nil)
		synctest.Wait()
		close(stop)
		assert.Equal(t, ErrStopped.Error(), <-got)
		w.Write([]byte("x"))
		assert.Equal(t, "x", <-got)
		assert.Equal(t, "x", <-got)

		_, err := b.Next(stop)
		assert.Equal(t, ErrStopped, err, "stop rules over bytes that are there")
		p, err := b.Next(nil)
		require.NoError(t, err)
		assert.Equal(t, "x", string(p), "what stop kept back is not lost")

		w.Close()
		require.NoError(t, <-done)
		_, err = b.Next(stop)
		assert.Equal(t, io.EOF, err, "who has read all was not stopped")
		for _, r := range []*Reader{a, b, c} {
			r.Close()
		}
	})
}

// Stopping and publishing at the same instant loses no wake-up and no byte.
func TestStopAgainstPublish(t *testing.T) {
	t.Parallel()
	const size = 2000
	f := New(Config{Length: size, Limit: size})
	r := join(t, f)
	whole := body(size)
	go f.Fill(iotest.OneByteReader(bytes.NewReader(whole)))
	var got []byte
	for {
		stop := make(chan struct{})
		go close(stop)
		p, err := r.Next(stop)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
		got = append(got, p...)
	}
	assert.True(t, bytes.Equal(whole, got))
	r.Close()
}

func TestNextAfterClose(t *testing.T) {
	t.Parallel()
	f := New(Config{Length: 1, Limit: 1})
	r := join(t, f)
	begin(t, f, []byte("x"))
	r.Close()
	r.Close()
	_, err := r.Next(nil)
	assert.Error(t, err)
	assert.NotEqual(t, io.EOF, err)
	assert.Zero(t, f.Readers())
}

func TestJoin(t *testing.T) {
	t.Parallel()
	t.Run("late, while it is kept", func(t *testing.T) {
		t.Parallel()
		f := New(Config{Length: -1, Limit: 1 << 20})
		require.NoError(t, f.Fill(strings.NewReader("abc")))
		for range 2 {
			got, err := drain(join(t, f))
			require.NoError(t, err)
			assert.Equal(t, "abc", string(got))
			f.Body()
		}
	})
	t.Run("not once bytes are gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := New(Config{Length: -1, Limit: 100})
			r := join(t, f)
			src, w := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- f.Fill(src) }()
			w.Write(body(100))
			late := join(t, f)
			w.Write([]byte("x"))
			synctest.Wait()
			last := join(t, f)
			for _, r := range []*Reader{r, late, last} {
				for range 2 {
					_, err := r.Next(nil)
					require.NoError(t, err)
				}
			}
			_, ok := f.Reader()
			assert.False(t, ok)
			w.Close()
			require.NoError(t, <-done)
			for _, r := range []*Reader{r, late, last} {
				r.Close()
			}
			_, ok = f.Reader()
			assert.False(t, ok)
		})
	})
	t.Run("not after a failure", func(t *testing.T) {
		t.Parallel()
		f := New(Config{Length: -1, Limit: 100})
		require.Equal(t, errSource, f.Fill(iotest.ErrReader(errSource)))
		_, ok := f.Reader()
		assert.False(t, ok)
	})
}

func TestFail(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errSource, nil, io.EOF} {
		l := &ledger{}
		f := l.flight(Config{Length: -1, Limit: 100})
		r := join(t, f)
		begin(t, f, []byte("abc"))
		f.Fail(err)
		got, readErr := drain(r)
		assert.Equal(t, "abc", string(got))
		require.Error(t, readErr)
		if errors.Is(err, errSource) {
			assert.Equal(t, errSource, readErr)
		}
		_, ok := f.Body()
		assert.False(t, ok)
		assert.Zero(t, l.held.Load())
	}
}

func TestSourceThatMisbehaves(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		src  readFunc
		want error
	}{
		{"never gets on", func([]byte) (int, error) { return 0, nil }, io.ErrNoProgress},
		{"counts more than it was given room for", func(p []byte) (int, error) { return len(p) + 1, nil }, errBadCount},
		{"counts below zero", func([]byte) (int, error) { return -1, nil }, errBadCount},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, limit := range []int64{100, 0} {
				l := &ledger{}
				f := l.flight(Config{Length: -1, Limit: limit})
				r := join(t, f)
				assert.Equal(t, tt.want, f.Fill(tt.src))
				_, err := drain(r)
				assert.Equal(t, tt.want, err)
				assert.Zero(t, l.held.Load())
			}
		})
	}
}

// Readers are released even if the source panics; the panic goes on.
func TestSourceThatPanics(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	f := l.flight(Config{Length: -1, Limit: 100})
	r := join(t, f)
	begin(t, f, []byte("abc"))
	assert.PanicsWithValue(t, "boom", func() {
		f.Fill(readFunc(func([]byte) (int, error) { panic("boom") }))
	})
	got, err := drain(r)
	assert.Equal(t, "abc", string(got))
	assert.Equal(t, errAborted, err)
	_, ok := f.Body()
	assert.False(t, ok)
	assert.Zero(t, l.held.Load())
}
