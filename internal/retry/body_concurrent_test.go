package retry

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A blockedSource yields what is sent to it, and fails once its deadline is set.
type blockedSource struct {
	chunks   chan string
	deadline chan struct{}
}

var errDeadline = errors.New("deadline")

func newBlockedSource() *blockedSource {
	return &blockedSource{chunks: make(chan string), deadline: make(chan struct{})}
}

func (s *blockedSource) Read(p []byte) (int, error) {
	select {
	case c, ok := <-s.chunks:
		if !ok {
			return 0, io.EOF
		}
		return copy(p, c), nil
	case <-s.deadline:
		return 0, errDeadline
	}
}

type result struct {
	data string
	err  error
}

func readAsync(r io.Reader, n int) <-chan result {
	done := make(chan result, 1)
	go func() {
		p := make([]byte, n)
		n, err := r.Read(p)
		done <- result{string(p[:n]), err}
	}()
	return done
}

func TestBlockedReadOfAClosedViewLosesNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		close func(b *Body, v io.Closer) io.Reader // closes v while its Read is blocked, returns the next view
	}{
		{"by the next attempt", func(b *Body, _ io.Closer) io.Reader {
			next, _ := b.Attempt()
			return next
		}},
		{"by its own Close", func(b *Body, v io.Closer) io.Reader {
			_ = v.Close()
			next, _ := b.Attempt()
			return next
		}},
		{"twice over", func(b *Body, _ io.Closer) io.Reader {
			_, _ = b.Attempt()
			next, _ := b.Attempt()
			return next
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := newBlockedSource()
				b := NewBody(src, -1, 64, -1)
				first := attempt(t, b)
				one := readAsync(first, 16)
				src.chunks <- "one "
				require.Equal(t, result{"one ", nil}, <-one)

				blocked := readAsync(first, 16)
				synctest.Wait()
				require.True(t, b.Busy())
				next := tt.close(b, first)

				p := make([]byte, 16)
				n, err := next.Read(p)
				require.NoError(t, err)
				require.Equal(t, "one ", string(p[:n]), "the replay does not wait")
				waiting := readAsync(next, 16)
				synctest.Wait()
				require.Empty(t, waiting)
				require.True(t, b.Busy())

				src.chunks <- "two "
				require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
				require.Equal(t, result{"two ", nil}, <-waiting)
				close(src.chunks)
				require.Equal(t, result{"", io.EOF}, <-readAsync(next, 16))
				require.EqualValues(t, 8, b.Read())
				require.True(t, b.Repeatable())
			})
		})
	}
}

func TestBlockedReadThatCannotBeKeptEndsRepetition(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		length     int64
		keep       int
		during     bool   // repeatable while "0123" is read and more is waited for
		rest       string // what then comes; "" is the end
		afterwards bool
	}{
		{"there is room", -1, 8, true, "4567", true},
		{"the buffer is full and more comes", -1, 4, false, "4567", false},
		{"the buffer is full and the end comes", -1, 4, false, "", true},
		{"all that was declared is kept", 4, 4, true, "", true},
		{"more than was declared comes", 4, 4, true, "4567", true},
		{"more than is kept was declared", 8, 4, false, "4567", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := newBlockedSource()
				b := NewBody(src, tt.length, tt.keep, -1)
				v := attempt(t, b)
				one := readAsync(v, 16)
				src.chunks <- "0123"
				require.Equal(t, result{"0123", nil}, <-one)

				blocked := readAsync(v, 16)
				synctest.Wait()
				require.Equal(t, tt.during, b.Repeatable())
				require.NoError(t, v.Close())
				require.Equal(t, tt.during, b.Repeatable())
				if tt.rest == "" {
					close(src.chunks)
				} else {
					src.chunks <- tt.rest
				}
				require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
				require.Equal(t, tt.afterwards, b.Repeatable())
			})
		})
	}
}

func TestCloseWaitsForTheSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newBlockedSource()
		b := NewBody(src, -1, 64, -1)
		blocked := readAsync(attempt(t, b), 16)
		synctest.Wait()
		closed := make(chan struct{})
		for range 2 {
			go func() {
				b.Close()
				closed <- struct{}{}
			}()
		}
		synctest.Wait()
		require.True(t, b.Busy())
		src.chunks <- "late"
		<-closed
		<-closed
		require.False(t, b.Busy())
		require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
		require.NoError(t, b.Err())
	})
}

func TestCloseUnblocksTheSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newBlockedSource()
		b := NewBody(src, -1, 64, -1)
		var before, unblocked int
		b.Before = func() {
			require.Zero(t, unblocked, "a deadline set after the one that unblocks would undo it")
			before++
		}
		b.Unblock = func() {
			unblocked++
			close(src.deadline)
		}
		first := attempt(t, b)
		blocked := readAsync(first, 16)
		synctest.Wait()
		waiting := readAsync(attempt(t, b), 16)
		synctest.Wait()

		b.Close()
		require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
		require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-waiting)
		require.NoError(t, b.Err(), "what Close provokes is no failure of the client")
		b.Close()
		require.Equal(t, 1, unblocked)
		require.Equal(t, 1, before)
	})
}

func TestAbortDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newBlockedSource()
		b := NewBody(src, -1, 64, -1)
		unblocked := 0
		b.Unblock = func() { unblocked++ }
		blocked := readAsync(attempt(t, b), 16)
		synctest.Wait()

		b.Abort()
		require.True(t, b.Busy(), "the read is still in flight")
		require.False(t, b.Repeatable())
		close(src.deadline)
		require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
		require.NoError(t, b.Err())
		b.Close()
		require.Equal(t, 1, unblocked)
	})
}

func TestCloseOfAnIdleBodyDoesNotUnblock(t *testing.T) {
	t.Parallel()
	b := NewBody(strings.NewReader("hello"), 5, 64, -1)
	b.Unblock = func() { t.Error("nothing was in flight") }
	_, err := io.ReadAll(attempt(t, b))
	require.NoError(t, err)
	b.Close()
}

func TestClientErrorReachesAWaitingView(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newBlockedSource()
		b := NewBody(src, 10, 64, -1)
		blocked := readAsync(attempt(t, b), 16)
		synctest.Wait()
		waiting := readAsync(attempt(t, b), 16)
		synctest.Wait()
		close(src.chunks)
		require.Equal(t, result{"", http.ErrBodyReadAfterClose}, <-blocked)
		require.Equal(t, result{"", io.ErrUnexpectedEOF}, <-waiting)
		require.Equal(t, io.ErrUnexpectedEOF, b.Err())
	})
}

// A transport's write goroutine reads a view while the attempt is given up and the next begins.
func TestBodyIsWholeWhateverAttemptsDo(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		size := r.IntN(8 << 10)
		keep := r.IntN(10 << 10)
		length := []int64{-1, int64(size)}[r.IntN(2)]
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		var inside atomic.Int32
		src := choppy(bytes.NewReader(want), seed, &inside)
		b := NewBody(src, length, keep, -1)
		b.Before = func() {
			if inside.Load() != 0 {
				t.Error("two reads of the source at once")
			}
		}

		type copied struct {
			data []byte
			err  error
		}
		var writers []chan copied
		var gaveUp bool // the last attempt
		for i := 0; ; i++ {
			v, ok := b.Attempt()
			if !ok {
				break
			}
			done := make(chan copied, 1)
			go func() { // the write goroutine
				defer v.Close()
				var buf bytes.Buffer
				_, err := io.CopyBuffer(struct{ io.Writer }{&buf}, struct{ io.Reader }{v}, make([]byte, 512))
				done <- copied{buf.Bytes(), err}
			}()
			writers = append(writers, done)
			gaveUp = false
			if i == 20 {
				break
			}
			switch r.IntN(4) { // the attempt fails, sooner or later
			case 0:
				_ = v.Close()
				gaveUp = true
			case 1:
				for start := b.Read(); b.Read() == start && b.Busy(); {
					runtime.Gosched()
				}
			case 2:
				_, _, _, _ = b.Busy(), b.Read(), b.Err(), b.Repeatable()
			}
		}
		for i, done := range writers {
			got := <-done
			if i == len(writers)-1 && !gaveUp {
				require.NoError(t, got.err, "seed %d", seed)
				require.Len(t, got.data, size, "seed %d", seed)
			}
			require.Equal(t, string(want[:len(got.data)]), string(got.data), "seed %d", seed)
		}
		if b.Repeatable() {
			v := attempt(t, b)
			data, err := io.ReadAll(v)
			require.NoError(t, err, "seed %d", seed)
			require.Equal(t, string(want), string(data), "seed %d", seed)
		} else {
			require.Greater(t, b.Read(), int64(keep), "seed %d", seed)
		}
		b.Close()
		require.False(t, b.Busy())
		require.NoError(t, b.Err(), "seed %d", seed)
	}
}

// choppy yields r in pieces of random size, sometimes empty, sometimes with the end.
func choppy(r *bytes.Reader, seed uint64, inside *atomic.Int32) io.Reader {
	random := rand.New(rand.NewPCG(seed, 8)) // unsynchronised on purpose: the race detector sees overlapping reads
	return readFunc(func(p []byte) (int, error) {
		inside.Add(1)
		defer inside.Add(-1)
		n, err := r.Read(p[:random.IntN(min(len(p), 700)+1)])
		if err == nil && r.Len() == 0 && random.IntN(2) == 0 {
			err = io.EOF
		}
		return n, err
	})
}

func TestCloseAmongReadsAndAttempts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		var closed atomic.Bool
		var reads int
		busy := make(chan struct{})
		b := NewBody(readFunc(func(p []byte) (int, error) {
			if closed.Load() {
				t.Error("the source is read after Close")
			}
			if reads++; reads == 20 {
				close(busy)
			}
			return r.IntN(len(p)) + 1, nil
		}), -1, 1<<20, -1)
		ended := make(chan struct{})
		for range 3 {
			go func() {
				defer func() { ended <- struct{}{} }()
				for {
					v, ok := b.Attempt()
					if !ok {
						return
					}
					for p := make([]byte, 1<<10); ; {
						if _, err := v.Read(p); err != nil {
							break
						}
					}
				}
			}()
		}
		<-busy
		b.Close()
		closed.Store(true)
		for range 3 {
			<-ended
		}
	}
}
