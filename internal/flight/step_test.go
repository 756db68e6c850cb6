package flight

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stepThrough fills f from src, which brings want as far as it may.
func stepThrough(t *testing.T, f *Flight, src io.Reader, want []byte) error {
	t.Helper()
	var got []byte
	for {
		p, err := f.Step(src)
		got = append(got, p...)
		if err == nil {
			assert.NotEmpty(t, p)
			continue
		}
		if !errors.Is(err, ErrSurplus) {
			assert.True(t, bytes.Equal(want, got), "steps brought %d bytes of %d", len(got), len(want))
		}
		_, again := f.Step(unread(t))
		assert.Equal(t, err, again)
		assert.False(t, f.Claim(), "there is nothing left to fill")
		f.Fail(errSource) // changes nothing
		if err == io.EOF {
			return nil
		}
		return err
	}
}

// unread is a source that nobody may read.
func unread(t *testing.T) io.Reader {
	return readFunc(func([]byte) (int, error) {
		assert.Fail(t, "read after the end")
		return 0, io.EOF
	})
}

func TestWhole(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		length, limit int64
		budget        int64
		before        func(f *Flight)
		want          bool
	}{
		{name: "as long as the limit", length: 200_000, limit: 200_000, want: true},
		{name: "empty", length: 0, limit: 10, want: true},
		{name: "asked again", length: 10, limit: 10, before: func(f *Flight) { f.Whole() }, want: true},
		{name: "unknown length", length: -1, limit: 10},
		{name: "above the limit", length: 11, limit: 10},
		{name: "no room", length: 11, limit: 20, budget: 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &ledger{max: tt.budget}
			f := l.flight(Config{Length: tt.length, Limit: tt.limit})
			if tt.before != nil {
				tt.before(f)
			}
			held := l.held.Load()
			require.Equal(t, tt.want, f.Whole())
			if tt.want {
				assert.Equal(t, tt.length, l.held.Load())
				return
			}
			assert.Equal(t, held, l.held.Load())
			_, err := f.Step(strings.NewReader("abc"))
			assert.Equal(t, errNotWhole, err)
			require.True(t, f.Claim())
			f.Fail(errSource)
			assert.Zero(t, l.held.Load())
		})
	}
}

// A body that came whole is one piece, which readers get in portions.
func TestWholeIsOnePiece(t *testing.T) {
	t.Parallel()
	want := body(200_000)
	f := New(Config{Length: 200_000, Limit: 1 << 20})
	require.True(t, f.Whole())
	r := join(t, f)
	require.NoError(t, stepThrough(t, f, bytes.NewReader(want), want))
	pieces, ok := f.Body()
	require.True(t, ok)
	require.Len(t, pieces, 1)
	assert.True(t, bytes.Equal(want, pieces[0]))
	var got []byte
	for {
		p, err := r.Next(nil)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		assert.LessOrEqual(t, len(p), maxChunk)
		got = append(got, p...)
	}
	assert.True(t, bytes.Equal(want, got))
}

// The leader's client stalls after the first byte. Who follows has a task fill
// the rest, and the leader goes on as a reader when its client does.
func TestFillIsHandedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const want = "abcdef"
		l := &ledger{}
		f := l.flight(Config{Length: int64(len(want)), Limit: 100})
		src := trickle{strings.NewReader(want)}
		require.True(t, f.Whole())
		leader := make(chan string, 1)
		start := time.Now()
		go func() {
			p, err := f.Step(src)
			assert.NoError(t, err)
			sent := string(p)
			time.Sleep(time.Hour) // in a write
			_, err = f.Step(src)
			assert.Equal(t, ErrTaken, err)
			r, ok := f.Reader()
			assert.True(t, ok)
			assert.True(t, r.Advance(int64(len(sent))))
			rest, err := drain(r)
			assert.NoError(t, err)
			leader <- sent + string(rest)
		}()
		time.Sleep(10 * time.Second)
		r := join(t, f)
		require.True(t, f.Claim())
		assert.False(t, f.Claim(), "one fills")
		stored := make(chan bool, 1)
		go func() {
			assert.NoError(t, f.Fill(src))
			_, ok := f.Body()
			stored <- ok
		}()
		got, err := drain(r)
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
		assert.Less(t, time.Since(start), time.Minute)
		assert.True(t, <-stored)
		assert.EqualValues(t, len(want), l.held.Load())
		assert.Equal(t, want, <-leader)
	})
}

// Whoever ends the fill waits for the Step under way, whose bytes count.
func TestClaimDuringStep(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(f *Flight, src io.Reader) error
		body string
		want error // of who claimed
		step error
	}{
		{"fill", (*Flight).Fill, "ab", nil, nil},
		{"fail", func(f *Flight, _ io.Reader) error { f.Fail(errSource); return errSource }, "a", errSource, nil},
		{"the step was the last", (*Flight).Fill, "a", nil, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				length := int64(2)
				if tt.step != nil {
					length = 1
				}
				f := New(Config{Length: length, Limit: 100})
				var src io.Reader = trickle{strings.NewReader(tt.body)}
				rest := src
				if tt.step != nil {
					rest = unread(t)
				}
				require.True(t, f.Whole())
				r := join(t, f)
				stepped := make(chan error, 1)
				go func() {
					p, err := f.Step(src)
					assert.Equal(t, "a", string(p))
					stepped <- err
				}()
				synctest.Wait()
				if tt.step == nil {
					require.True(t, f.Claim()) // Fill claims by itself
				}
				assert.Equal(t, tt.want, tt.end(f, rest))
				assert.Equal(t, tt.step, <-stepped)
				got, err := drain(r)
				assert.Equal(t, tt.want, err)
				assert.Equal(t, tt.body, string(got))
				_, err = f.Step(src)
				if tt.want != nil {
					assert.Equal(t, tt.want, err, "a failed fill says how, for there is no Reader")
				} else {
					assert.Equal(t, ErrTaken, err)
				}
			})
		})
	}
}

// A Step whose source panics ends the fill.
func TestStepThatPanics(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	f := l.flight(Config{Length: 10, Limit: 100})
	require.True(t, f.Whole())
	r := join(t, f)
	begin(t, f, []byte("abc"))
	assert.PanicsWithValue(t, "boom", func() {
		f.Step(readFunc(func([]byte) (int, error) { panic("boom") }))
	})
	got, err := drain(r)
	assert.Equal(t, "abc", string(got))
	assert.Equal(t, errAborted, err)
	assert.False(t, f.Claim())
	assert.Zero(t, l.held.Load())
}

// Wherever the fill changes hands, all get the whole body and one may store it.
func TestHandOverAtAnyTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		want := body(1 + rnd.IntN(200_000))
		l := &ledger{}
		f := l.flight(Config{Length: int64(len(want)), Limit: 1 << 20})
		rest := bytes.NewReader(want)
		src := readFunc(func(p []byte) (int, error) { // one at a time reads it
			return rest.Read(p[:min(len(p), 1+rest.Len()/8)])
		})
		require.True(t, f.Whole())
		bodies := make(chan bool, 2)
		var wg sync.WaitGroup
		wg.Go(func() { assert.True(t, bytes.Equal(want, stepUntilTaken(t, f, src, bodies))) })
		wait := rnd.IntN(20)
		wg.Go(func() {
			for range wait {
				runtime.Gosched()
			}
			r, ok := f.Reader()
			assert.True(t, ok)
			if f.Claim() {
				wg.Go(func() {
					assert.NoError(t, f.Fill(src))
					_, ok := f.Body()
					bodies <- ok
				})
			}
			got, err := drain(r)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(want, got))
		})
		wg.Wait()
		close(bodies)
		n := 0
		for ok := range bodies {
			if ok {
				n++
			}
		}
		require.Equal(t, 1, n, "seed %d", seed)
		require.EqualValues(t, len(want), l.held.Load(), "seed %d", seed)
	}
}

// stepUntilTaken is what a leader does.
func stepUntilTaken(t *testing.T, f *Flight, src io.Reader, bodies chan<- bool) (got []byte) {
	for {
		p, err := f.Step(src)
		got = append(got, p...)
		switch {
		case err == io.EOF:
			_, ok := f.Body()
			bodies <- ok
			return got
		case err == ErrTaken:
			r, ok := f.Reader()
			assert.True(t, ok)
			assert.True(t, r.Advance(int64(len(got))))
			rest, err := drain(r)
			assert.NoError(t, err)
			return append(got, rest...)
		case err != nil:
			assert.NoError(t, err)
			return got
		}
	}
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	const size = 3*maxChunk + 10
	want := body(size)
	for _, n := range []int64{-1, 0, 1, maxChunk - 1, maxChunk, maxChunk + 1, 2 * maxChunk, size - 1, size} {
		for _, lent := range []bool{false, true} {
			f := New(Config{Length: size, Limit: size})
			require.NoError(t, f.Fill(bytes.NewReader(want)))
			r := join(t, f)
			from := max(n, 0)
			if lent { // what Next lent is passed first
				_, err := r.Next(nil)
				require.NoError(t, err)
				from += maxChunk
			}
			require.Equal(t, from <= size, r.Advance(n))
			got, err := drain(r)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(want[min(from, size):], got), "advanced by %d", n)
			assert.False(t, r.Advance(1), "closed")
		}
	}
}

// What is passed over is not waited for, and is released like what is read.
func TestAdvanceReleases(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	f := l.flight(Config{Length: -1, Limit: 100})
	r := join(t, f)
	begin(t, f, body(100))
	f.Fail(errSource)
	require.EqualValues(t, 100, l.held.Load())
	assert.False(t, r.Advance(101))
	assert.Zero(t, l.held.Load())
	_, err := r.Next(nil)
	assert.Equal(t, errSource, err)
	r.Close()
}
