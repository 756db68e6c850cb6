package deliver

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// client notes what is done to it, in order.
type client struct {
	http.ResponseWriter
	did  []string
	dues []time.Time
}

func (c *client) Write(p []byte) (int, error) {
	c.did = append(c.did, "write")
	return len(p), nil
}

func (c *client) FlushError() error {
	c.did = append(c.did, "flush")
	return nil
}

func (c *client) SetWriteDeadline(due time.Time) error {
	c.dues = append(c.dues, due)
	return nil
}

func TestPiecesThatWouldStayAreFlushed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		length int64
		flush  bool
		pieces []int
		want   string
	}{
		{"all at once", 100, false, []int{100}, "write"},
		{"short pieces", 100, false, []int{40, 60}, "write flush write"},
		{"a long piece, whose end the server writes", 10_000, false, []int{short, 10_000 - short}, "write write"},
		{"of unknown length", -1, false, []int{40, 60}, "write write"},
		{"each at once", -1, true, []int{40, short}, "write flush write flush"},
		{"each at once, the last too", 100, true, []int{100}, "write flush"},
	} {
		var w client
		var c Content
		c.Begin(&w, row.length, row.flush, 0, time.Time{})
		sent := 0
		for _, n := range row.pieces {
			require.NoError(t, c.Emit(make([]byte, n)))
			sent += n
		}
		assert.Equal(t, row.want, strings.Join(w.did, " "), row.name)
		assert.EqualValues(t, sent, c.Sent, row.name)
		assert.Empty(t, w.dues, row.name)
		c.Release()
		assert.Empty(t, w.dues, "there was no deadline to be taken back")
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	for length, want := range map[int64]bool{-1: true, 0: false, small: false, small + 1: true} {
		var c Content
		c.Begin(nil, length, false, 0, time.Time{})
		assert.Equal(t, want, c.Blocks(), length)
	}
}

func TestAPieceHasItsTime(t *testing.T) {
	for _, row := range []struct {
		name   string
		length int64
		idle   time.Duration
		end    time.Duration
		want   []time.Duration // the deadlines of pieces at 0, 1 and 2 s
	}{
		{"as long as each needs", -1, 10 * time.Second, 0, []time.Duration{10 * time.Second, 11 * time.Second, 12 * time.Second}},
		{"until all must have ended", -1, 0, 5 * time.Second, []time.Duration{5 * time.Second, 5 * time.Second, 5 * time.Second}},
		{"whichever is first", -1, 4 * time.Second, 5 * time.Second, []time.Duration{4 * time.Second, 5 * time.Second, 5 * time.Second}},
		{"no bound", -1, 0, 0, nil},
		{"what cannot block", small, time.Second, 5 * time.Second, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			var w client
			var c Content
			var end time.Time
			start := time.Now()
			if row.end > 0 {
				end = start.Add(row.end)
			}
			c.Begin(&w, row.length, false, row.idle, end)
			for range 3 {
				require.NoError(t, c.Emit([]byte("x")))
				time.Sleep(time.Second)
			}
			var dues []time.Duration
			for _, due := range w.dues {
				dues = append(dues, due.Sub(start))
			}
			assert.Equal(t, row.want, dues, row.name)
			c.Release()
			assert.Equal(t, row.idle > 0 || row.end > 0, len(w.dues) > len(dues), row.name)
			assert.True(t, len(w.dues) == 0 || w.dues[len(w.dues)-1].IsZero(), row.name)
		})
	}
}

// A stream's deadline is there while it is written to, and at no other time.
func TestAStreamHasNoDeadlineBetweenPieces(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		length int64
		idle   time.Duration
		pieces int
		want   []bool // whether each deadline that is set is one
	}{
		{"of unknown length", -1, time.Hour, 2, []bool{true, false, true, false}},
		{"of a length, whose end takes it off", small + 1, time.Hour, 1, []bool{true}},
		{"what cannot block", small, time.Hour, 1, nil},
		{"no bound", -1, 0, 2, nil},
	} {
		var w client
		var c Content
		c.Begin(&w, row.length, false, row.idle, time.Time{})
		c.Stream = true
		for range row.pieces {
			require.NoError(t, c.Emit(make([]byte, max(row.length, 1))))
		}
		var got []bool
		for _, due := range w.dues {
			got = append(got, !due.IsZero())
		}
		assert.Equal(t, row.want, got, row.name)
	}
	var w client
	var c Content
	c.Begin(&cutter{client: &w, content: &c}, -1, false, time.Hour, time.Time{})
	c.Stream = true
	_ = c.Emit([]byte("x"))
	assert.Equal(t, time.Unix(1, 0), w.dues[len(w.dues)-1], "one that was cut meanwhile stays so")
}

// cutter has the content cut while it is written.
type cutter struct {
	*client
	content *Content
}

func (c *cutter) Write(p []byte) (int, error) {
	c.content.Cut(nil)
	return c.client.Write(p)
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, refused := range []bool{false, true} {
		var w client
		var c Content
		c.Begin(&w, -1, false, time.Hour, time.Time{})
		assert.False(t, c.WasCut())
		if refused {
			c.Refuse()
		} else {
			require.NoError(t, c.Emit([]byte("x")))
			c.Cut(nil)
			assert.True(t, slices.IsSortedFunc(w.dues, func(a, b time.Time) int { return b.Compare(a) }), "a write that waits has run out of time")
		}
		assert.True(t, c.WasCut())
		dues := len(w.dues)
		n, err := c.Write([]byte("x"))
		assert.Zero(t, n)
		require.ErrorIs(t, err, ErrCut)
		assert.Len(t, w.dues, dues, "and gets no more")
	}
}

// hidden is a writer that shows nothing but what it must.
type hidden struct{ http.ResponseWriter }

func (hidden) Write(p []byte) (int, error) { return len(p), nil }

func TestWritersThatCanDoLess(t *testing.T) {
	t.Parallel()
	var c Content
	c.Begin(hidden{}, -1, true, time.Hour, time.Time{})
	require.NoError(t, c.Emit([]byte("x")))
	require.NoError(t, c.Flush())
	c.Release()
}
