package forward

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("broken")

// reads is a source that returns these in turn.
type reads []struct {
	data string
	err  error
}

func (r *reads) Read(p []byte) (int, error) {
	next := (*r)[0]
	*r = (*r)[1:]
	return copy(p, next.data), next.err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCopy(t *testing.T) {
	type events []string
	for _, test := range []struct {
		name    string
		src     io.Reader
		write   func(p []byte) (int, error) // nil: takes all
		flush   error
		written string
		want    events
		err     error
	}{
		{name: "empty", src: &reads{{"", io.EOF}}},
		{name: "pieces", src: &reads{{"ab", nil}, {"", nil}, {"c", nil}, {"", io.EOF}}, written: "abc",
			want: events{"read 2", "write", "flush", "read 1", "write", "flush"}},
		{name: "bytes with the end", src: &reads{{"ab", io.EOF}}, written: "ab", want: events{"read 2", "write", "flush"}},
		{name: "bytes with an error", src: &reads{{"ab", errBroken}}, written: "ab", want: events{"read 2", "write", "flush"}, err: &ReadError{errBroken}},
		{name: "truncated", src: &reads{{"", io.ErrUnexpectedEOF}}, err: &ReadError{io.ErrUnexpectedEOF}},
		{name: "write fails", src: &reads{{"ab", nil}}, write: func([]byte) (int, error) { return 1, errBroken }, written: "a",
			want: events{"read 2", "write"}, err: &WriteError{errBroken}},
		{name: "write fails at the end", src: &reads{{"ab", io.EOF}}, write: func([]byte) (int, error) { return 0, errBroken },
			want: events{"read 2", "write"}, err: &WriteError{errBroken}},
		{name: "short write", src: &reads{{"ab", nil}}, write: func([]byte) (int, error) { return 1, nil }, written: "a",
			want: events{"read 2", "write"}, err: &WriteError{io.ErrShortWrite}},
		{name: "long write", src: &reads{{"ab", nil}}, write: func([]byte) (int, error) { return 3, nil },
			want: events{"read 2", "write"}, err: &WriteError{io.ErrShortWrite}},
		{name: "flush fails", src: &reads{{"ab", nil}}, flush: errBroken, written: "ab",
			want: events{"read 2", "write", "flush"}, err: &WriteError{errBroken}},
		{name: "no progress", src: readerFunc(func([]byte) (int, error) { return 0, nil }), err: &ReadError{io.ErrNoProgress}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got events
			var body strings.Builder
			c := Copier{
				W: writerFunc(func(p []byte) (n int, err error) {
					got = append(got, "write")
					if n = len(p); test.write != nil {
						n, err = test.write(p)
					}
					body.Write(p[:min(n, len(test.written))])
					return n, err
				}),
				Flush:  func() error { got = append(got, "flush"); return test.flush },
				OnRead: func(n int) { got = append(got, "read "+string(rune('0'+n))) },
			}
			n, err := c.Copy(test.src, make([]byte, 8))
			require.Equal(t, test.err, err)
			require.EqualValues(t, len(test.written), n)
			require.Equal(t, test.written, body.String())
			require.Equal(t, test.want, got)
		})
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCopyErrorsAreToldApart(t *testing.T) {
	_, err := (&Copier{W: io.Discard}).Copy(iotest.ErrReader(errBroken), make([]byte, 1))
	var readErr *ReadError
	var writeErr *WriteError
	require.ErrorAs(t, err, &readErr)
	require.NotErrorAs(t, err, &writeErr)
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, &WriteError{errBroken}, errBroken)
	require.Equal(t, "read body: broken", err.Error())
	require.Equal(t, "write body: broken", (&WriteError{errBroken}).Error())
}

// A destination's ReadFrom would flush the header alone.
func TestCopyDoesNotReadFrom(t *testing.T) {
	w := &readsFrom{}
	n, err := (&Copier{W: w}).Copy(strings.NewReader("body"), make([]byte, 3))
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
	require.Equal(t, "body", w.String())
	require.False(t, w.used)
}

type readsFrom struct {
	bytes.Buffer
	used bool
}

func (w *readsFrom) ReadFrom(r io.Reader) (int64, error) { w.used = true; return w.Buffer.ReadFrom(r) }

func TestNeedsFlush(t *testing.T) {
	for _, test := range []struct {
		contentType string
		length      int64
		want        bool
	}{
		{"text/event-stream", 10, true},
		{"Text/Event-Stream", 10, true},
		{" text/event-stream ; charset=utf-8", 10, true},
		{"text/event-stream;charset=utf-8", 10, true},
		{"text/event-streams", 10, false},
		{"text/html; x=text/event-stream", 10, false},
		{"", 10, false},
		{"text/html", 0, false},
		{"text/html", -1, true},
	} {
		h := http.Header{"Content-Type": {test.contentType}}
		require.Equal(t, test.want, NeedsFlush(h, test.length), test.contentType)
	}
	require.False(t, IsEventStream(nil))
	require.False(t, IsEventStream(http.Header{"Content-Type": nil}))
}

func TestCopyAllocatesNothing(t *testing.T) {
	c := Copier{W: io.Discard}
	body := bytes.NewReader(make([]byte, 200<<10))
	src := struct{ io.Reader }{body}
	allocations(t, 0, func() {
		body.Seek(0, io.SeekStart)
		buf := GetBuffer()
		if _, err := c.Copy(&src, buf[:]); err != nil {
			panic(err)
		}
		PutBuffer(buf)
	})
}

func BenchmarkCopy(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
	}{{"body=1KiB", 1 << 10}, {"body=100KiB", 100 << 10}} {
		b.Run(bench.name, func(b *testing.B) {
			c := Copier{W: io.Discard}
			body := bytes.NewReader(make([]byte, bench.size))
			src := struct{ io.Reader }{body}
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			for b.Loop() {
				body.Seek(0, io.SeekStart)
				buf := GetBuffer()
				_, _ = c.Copy(&src, buf[:])
				PutBuffer(buf)
			}
		})
	}
}
