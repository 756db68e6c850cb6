package retry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var (
	errClient  = errors.New("client went away")
	errWrapped = fmt.Errorf("chunk: %w", io.EOF)
)

func text(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }

func attempt(t *testing.T, b *Body) io.ReadCloser {
	t.Helper()
	v, ok := b.Attempt()
	require.True(t, ok)
	return v
}

func TestBodyOfOneAttempt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		src      io.Reader
		length   int64
		keep     int
		maxBytes int64

		want   string
		err    error // nil: io.EOF
		repeat bool
	}{
		{"no body", nil, 0, 64, -1, "", nil, true},
		{"empty, unknown length", strings.NewReader(""), -1, 64, -1, "", nil, true},
		{"empty, nothing kept", strings.NewReader(""), 0, 0, -1, "", nil, true},
		{"known length", strings.NewReader("hello"), 5, 64, -1, "hello", nil, true},
		{"unknown length", strings.NewReader("hello"), -1, 64, -1, "hello", nil, true},
		{"end together with the last bytes", iotest.DataErrReader(strings.NewReader("hello")), 5, 64, -1, "hello", nil, true},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(text(3000))), 3000, 4096, -1, text(3000), nil, true},
		{"as long as is kept", strings.NewReader(text(64)), 64, 64, -1, text(64), nil, true},
		{"as long as is kept, unknown length", strings.NewReader(text(64)), -1, 64, -1, text(64), nil, true},
		{"longer than is kept", strings.NewReader(text(65)), 65, 64, -1, text(65), nil, false},
		{"longer than is kept, unknown length", strings.NewReader(text(65)), -1, 64, -1, text(65), nil, false},
		{"much longer than is kept", strings.NewReader(text(1 << 20)), 1 << 20, 64 << 10, -1, text(1 << 20), nil, false},
		{"nothing kept", strings.NewReader("h"), 1, 0, -1, "h", nil, false},
		{"negative keep is none", strings.NewReader("h"), -1, -1, -1, "h", nil, false},

		{"shorter than declared", strings.NewReader("hell"), 5, 64, -1, "hell", io.ErrUnexpectedEOF, true},
		{"shorter than declared by all", nil, 5, 64, -1, "", io.ErrUnexpectedEOF, true},
		{"shorter than the longest length", strings.NewReader("hell"), math.MaxInt64, 64, -1, "hell", io.ErrUnexpectedEOF, true},
		{"longer than declared", strings.NewReader("hello!"), 5, 64, -1, "hello", errSurplus, true},
		{"longer than declared and kept", strings.NewReader("hello!"), 5, 5, -1, "hello", errSurplus, true},
		{"source fails", io.MultiReader(strings.NewReader("he"), iotest.ErrReader(errClient)), 5, 64, -1, "he", errClient, true},
		{"source fails together with bytes", iotest.DataErrReader(io.MultiReader(strings.NewReader("he"), iotest.ErrReader(errClient))), 5, 64, -1, "he", errClient, true},

		{"source fails with a wrapped EOF", iotest.ErrReader(errWrapped), -1, 64, -1, "", errWrapped, true},

		{"as large as allowed", strings.NewReader("hello"), -1, 64, 5, "hello", nil, true},
		{"larger than allowed", strings.NewReader("hello!"), -1, 64, 5, "hello", ErrTooLarge, true},
		{"larger than allowed and kept", strings.NewReader("hello!"), -1, 2, 5, "hello", ErrTooLarge, false},
		{"nothing allowed", strings.NewReader("h"), -1, 64, 0, "", ErrTooLarge, true},
		{"nothing allowed, nothing there", strings.NewReader(""), -1, 64, 0, "", nil, true},
		{"any size", strings.NewReader("hello"), -1, 64, math.MaxInt64, "hello", nil, true},
		{"declared as large as allowed", strings.NewReader("hello"), 5, 64, 5, "hello", nil, true},
		{"declared larger than allowed", iotest.ErrReader(errClient), 6, 64, 5, "", ErrTooLarge, true},

		{"source that brings nothing for ever", stuck(0), -1, 64, -1, "", io.ErrNoProgress, true},
		{"source that counts below zero", stuck(-1), -1, 64, -1, "", errMisread, true},
		{"source that counts beyond the buffer", stuck(math.MaxInt), -1, 64, -1, "", errMisread, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := NewBody(tt.src, tt.length, tt.keep, tt.maxBytes)
			require.True(t, b.Repeatable())
			v := attempt(t, b)
			got, err := io.ReadAll(v)
			require.Equal(t, tt.want, string(got))
			require.Equal(t, tt.err, err)
			require.Equal(t, tt.err, b.Err())
			require.False(t, b.Busy())
			require.Equal(t, tt.repeat, b.Repeatable())
			require.LessOrEqual(t, cap(b.kept), max(tt.keep, 0))

			n, err := v.Read(make([]byte, 8))
			require.Zero(t, n)
			require.Equal(t, endOr(tt.err), err, "the end stays")

			again, ok := b.Attempt()
			require.Equal(t, tt.repeat, ok)
			if ok {
				got, err = io.ReadAll(iotest.HalfReader(again))
				require.Equal(t, tt.want, string(got))
				require.Equal(t, tt.err, err)
				_, err = v.Read(make([]byte, 8))
				require.Equal(t, http.ErrBodyReadAfterClose, err, "the former view is closed")
			}
			b.Close()
			require.Equal(t, tt.err, b.Err())
			require.Nil(t, b.kept)
		})
	}
}

func endOr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// stuck is a reader that returns the same count and no error for ever.
type stuck int

func (s stuck) Read([]byte) (int, error) { return int(s), nil }

func TestBodyIsReadOnce(t *testing.T) {
	t.Parallel()
	src := strings.NewReader(text(3000))
	b := NewBody(src, -1, 4096, -1)
	p := make([]byte, 1000)
	for range 5 { // five attempts that fail after 1000 bytes
		_, err := io.ReadFull(attempt(t, b), p)
		require.NoError(t, err)
		require.Equal(t, text(1000), string(p))
		require.EqualValues(t, 1000, b.Read())
	}
	got, err := io.ReadAll(attempt(t, b))
	require.NoError(t, err)
	require.Equal(t, text(3000), string(got))
	require.EqualValues(t, 3000, b.Read())
	require.Zero(t, src.Len())
}

func TestBodyStaysRepeatableUntilMoreThanKeptIsRead(t *testing.T) {
	t.Parallel()
	b := NewBody(strings.NewReader(text(5<<20)), 5<<20, 100, -1)
	v := attempt(t, b)
	require.True(t, b.Repeatable())

	_, err := io.ReadFull(v, make([]byte, 100))
	require.NoError(t, err)
	v = attempt(t, b)
	p := make([]byte, 101)
	_, err = io.ReadFull(v, p)
	require.NoError(t, err)
	require.Equal(t, text(101), string(p))

	_, ok := b.Attempt()
	require.False(t, ok)
	require.Nil(t, b.kept, "what cannot be used is freed")
	rest, err := io.ReadAll(v)
	require.NoError(t, err, "the open view is left as it is")
	require.Equal(t, text(5 << 20)[101:], string(rest))
}

func TestBodyReadsOfNothing(t *testing.T) {
	t.Parallel()
	b := NewBody(iotest.ErrReader(errClient), 5, 64, -1)
	v := attempt(t, b)
	n, err := v.Read(nil)
	require.Zero(t, n)
	require.NoError(t, err)
	require.NoError(t, b.Err(), "the source is not touched")
	require.NoError(t, v.Close())
	_, err = v.Read(nil)
	require.Equal(t, http.ErrBodyReadAfterClose, err)
}

func TestBodyGrowsWithWhatArrives(t *testing.T) {
	t.Parallel()
	b := NewBody(strings.NewReader("hello"), 60<<10, 64<<10, -1)
	require.Zero(t, cap(b.kept))
	_, err := io.ReadAll(attempt(t, b))
	require.Equal(t, io.ErrUnexpectedEOF, err)
	require.LessOrEqual(t, cap(b.kept), firstKeep, "a declared length alone takes no memory")
}

func TestClosedBody(t *testing.T) {
	t.Parallel()
	b := NewBody(strings.NewReader("hello"), 5, 64, -1)
	v := attempt(t, b)
	_, err := io.ReadFull(v, make([]byte, 2))
	require.NoError(t, err)
	b.Close()
	b.Close()
	_, err = v.Read(make([]byte, 2))
	require.Equal(t, http.ErrBodyReadAfterClose, err)
	require.NoError(t, v.Close())
	require.False(t, b.Repeatable())
	_, ok := b.Attempt()
	require.False(t, ok)
	require.NoError(t, b.Err())
	require.EqualValues(t, 2, b.Read())
}

func TestBeforeRunsBeforeEachReadOfTheSource(t *testing.T) {
	t.Parallel()
	var before, reads int
	b := NewBody(readFunc(func(p []byte) (int, error) {
		reads++
		require.Equal(t, reads, before)
		if reads == 4 {
			return 0, io.EOF
		}
		return copy(p, "x"), nil
	}), -1, 64, -1)
	b.Before = func() { before++ }
	for range 3 { // replays do not touch the source
		got, err := io.ReadAll(attempt(t, b))
		require.NoError(t, err)
		require.Equal(t, "xxx", string(got))
	}
	require.Equal(t, 4, before)
}

// A deadline that Before has set is taken off while nobody reads the source, but
// not where the body has ended or is somebody else's.
func TestAfterRunsAfterEachReadThatDoesNotEndTheSource(t *testing.T) {
	t.Parallel()
	for _, end := range []error{io.EOF, errClient} {
		var deadline bool
		var reads, after, ends int
		b := NewBody(readFunc(func(p []byte) (int, error) {
			require.True(t, deadline)
			if reads++; reads == 4 {
				return 0, end
			}
			return copy(p, "x"), nil
		}), -1, 64, -1)
		b.Before = func() { deadline = true }
		b.After = func() { deadline, after = false, after+1 }
		b.AtEOF = func() { ends++ }
		v := attempt(t, b)
		for n := 1; n <= 3; n++ {
			_, err := v.Read(make([]byte, 1))
			require.NoError(t, err)
			require.Equal(t, n, after)
		}
		_, err := v.Read(make([]byte, 1))
		require.Equal(t, end, err)
		require.Equal(t, 3, after)
		require.Equal(t, end == io.EOF, ends == 1)
	}
	b := NewBody(nil, -1, 64, -1)
	b.src = readFunc(func(p []byte) (int, error) {
		b.mu.Lock()
		b.closed = true
		b.mu.Unlock()
		return copy(p, "x"), nil
	})
	b.After = func() { t.Error("Close has begun") }
	_, _ = attempt(t, b).Read(make([]byte, 1))
}

func TestAtEOFRunsOnceBeforeTheEndIsRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		src    io.Reader
		length int64
		want   int
	}{
		{"end after the last bytes", strings.NewReader("hello"), -1, 1},
		{"end together with the last bytes", iotest.DataErrReader(strings.NewReader("hello")), 5, 1},
		{"no body", nil, 0, 1},
		{"more than is kept", strings.NewReader(text(65)), 65, 1},
		{"shorter than declared", strings.NewReader("hell"), 5, 0},
		{"longer than declared", strings.NewReader("hello!"), 5, 0},
		{"longer than declared, together with the end", iotest.DataErrReader(strings.NewReader("hello!")), 5, 0},
		{"source fails", iotest.ErrReader(errClient), 5, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var ends int
			b := NewBody(tt.src, tt.length, 64, -1)
			b.AtEOF = func() { ends++ }
			v := attempt(t, b)
			_, err := io.Copy(io.Discard, readFunc(func(p []byte) (int, error) {
				n, err := v.Read(p)
				if err == io.EOF {
					require.Equal(t, 1, ends)
				}
				return n, err
			}))
			require.Equal(t, tt.want == 1, err == nil)
			if again, ok := b.Attempt(); ok { // a replay's end is not the source's
				_, _ = io.Copy(io.Discard, again)
			}
			require.Equal(t, tt.want, ends)
			require.Equal(t, tt.want == 1, b.Done())
		})
	}
}

func TestPanicAtEOFDoesNotHoldUpClose(t *testing.T) {
	t.Parallel()
	b := NewBody(strings.NewReader(""), -1, 0, -1)
	b.AtEOF = func() { panic("a hook's fault") }
	v := attempt(t, b)
	require.Panics(t, func() { _, _ = v.Read(make([]byte, 8)) })
	require.False(t, b.Busy())
	b.Close()
}

func TestBodyIsDone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		length int64
		want   bool // once "hello" was read, but not its end
		end    bool // once that was read, too
	}{
		{"known length", 5, true, true},
		{"unknown length", -1, false, true},
		{"shorter than declared", 6, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := NewBody(strings.NewReader("hello"), tt.length, 64, -1)
			require.False(t, b.Done())
			v := attempt(t, b)
			_, err := io.ReadFull(v, make([]byte, 5))
			require.NoError(t, err)
			require.Equal(t, tt.want, b.Done())
			_, err = v.Read(make([]byte, 5))
			require.Error(t, err)
			require.Equal(t, tt.end, b.Done())
		})
	}
	require.True(t, NewBody(nil, 0, 0, -1).Done())
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestPanicOfTheSourceLeavesTheBodyUsable(t *testing.T) {
	t.Parallel()
	b := NewBody(readFunc(func([]byte) (int, error) { panic(http.ErrAbortHandler) }), -1, 64, -1)
	v := attempt(t, b)
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { _, _ = v.Read(make([]byte, 8)) })
	require.False(t, b.Busy())
	require.Equal(t, errAbandoned, b.Err())
	b.Close() // does not wait for ever
}

func TestBodyAllocations(t *testing.T) {
	if raceEnabled {
		return
	}
	data := text(16 << 10)
	src := strings.NewReader(data)
	p := make([]byte, 32<<10)
	once := func(keep int) int {
		return int(testing.AllocsPerRun(100, func() {
			src.Reset(data)
			b := NewBody(src, int64(len(data)), keep, -1)
			v, _ := b.Attempt()
			for {
				if _, err := v.Read(p); err != nil {
					break
				}
			}
			b.Close()
		}))
	}
	require.Equal(t, 1, once(0), "the Body, its first view included")
	require.Equal(t, 2, once(64<<10), "and what is kept")
}

func BenchmarkBody(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"10MiB", 10 << 20}} {
		for _, keep := range []struct {
			name  string
			bytes int
		}{{"0", 0}, {"64KiB", 64 << 10}} {
			b.Run("size="+size.name+"/keep="+keep.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(size.bytes))
				data := make([]byte, size.bytes)
				src := bytes.NewReader(data)
				p := make([]byte, 64<<10)
				for b.Loop() {
					src.Reset(data)
					body := NewBody(src, int64(size.bytes), keep.bytes, -1)
					v, _ := body.Attempt()
					for {
						if _, err := v.Read(p); err != nil {
							break
						}
					}
					body.Close()
				}
			})
		}
	}
}
