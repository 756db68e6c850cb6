package draft

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func set(w http.ResponseWriter, name, value string) { w.Header().Set(name, value) }

func write(w io.Writer, parts ...string) {
	for _, p := range parts {
		_, _ = io.WriteString(w, p)
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

var large = strings.Repeat("0123456789abcdef", holdBack/16+100)

// handlers are what handlers do, and when their answer is judged.
var handlers = []struct {
	name   string
	do     http.HandlerFunc
	status int
	begun  string
	whole  bool // it is judged when they have returned
	length int64
}{
	{"nothing", func(http.ResponseWriter, *http.Request) {}, 200, "", true, 0},
	{"a status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, 404, "", true, 0},
	{"two statuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.WriteHeader(500) }, 404, "", true, 0},
	{"a status after content", func(w http.ResponseWriter, _ *http.Request) { write(w, "a"); w.WriteHeader(404) }, 200, "a", true, 1},
	{"content", func(w http.ResponseWriter, _ *http.Request) { write(w, "<html>", "x") }, 200, "<html>x", true, 7},
	{"content of a type", func(w http.ResponseWriter, _ *http.Request) { set(w, "Content-Type", "a/b"); write(w, "<html>") }, 200, "<html>", true, 6},
	{"content of no type", func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = nil; write(w, "<html>") }, 200, "<html>", true, 6},
	{"encoded content", func(w http.ResponseWriter, _ *http.Request) { set(w, "Content-Encoding", "x"); write(w, "<html>") }, 200, "<html>", true, 6},
	{"a header that comes late", func(w http.ResponseWriter, _ *http.Request) { set(w, "X-A", "1"); write(w, "a"); set(w, "X-A", "2") }, 200, "a", true, 1},
	{"a flush", func(w http.ResponseWriter, _ *http.Request) { flush(w) }, 200, "", false, -1},
	{"content and a flush", func(w http.ResponseWriter, _ *http.Request) { write(w, "a"); flush(w); write(w, "b") }, 200, "a", false, -1},
	{"a length and a flush", func(w http.ResponseWriter, _ *http.Request) {
		set(w, "Content-Length", "2")
		write(w, "a")
		flush(w)
		write(w, "b")
	}, 200, "a", false, 2},
	{"much", func(w http.ResponseWriter, _ *http.Request) { write(w, large) }, 200, large[:sniffed], false, -1},
	{"much, bit by bit", func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(large); i += 1000 {
			write(w, large[i:min(i+1000, len(large))])
		}
	}, 200, large[:holdBack/1000*1000], false, -1},
	{"trailers", func(w http.ResponseWriter, _ *http.Request) {
		set(w, "Trailer", "X-A, x-b")
		write(w, "a")
		flush(w)
		set(w, "X-A", "1")
		set(w, http.TrailerPrefix+"X-C", "3")
	}, 200, "a", false, -1},
	{"1xx", func(w http.ResponseWriter, _ *http.Request) {
		set(w, "Link", "</a>")
		w.WriteHeader(103)
		w.Header().Del("Link")
		write(w, "a")
	}, 200, "a", true, 1},
}

// serve returns what a client gets.
func serve(t *testing.T, h http.HandlerFunc) (*http.Response, string) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Header.Del("Date")
	return resp, string(body)
}

// What passes is what it would be without a Writer.
func TestWhatPassesIsAsItWas(t *testing.T) {
	t.Parallel()
	for _, row := range handlers {
		for _, atOnce := range []bool{false, true} {
			bare, bareBody := serve(t, row.do)
			resp, body := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				w := &Writer{Client: rw, AtOnce: atOnce}
				w.Inform = func(status int, fields http.Header) {
					maps.Copy(rw.Header(), fields)
					rw.WriteHeader(status)
					clear(rw.Header())
				}
				w.Judge = func(bool) {
					maps.Copy(rw.Header(), w.Head)
					rw.WriteHeader(w.Status)
					w.Pass()
				}
				row.do(w, r)
				w.End()
				w.Trail()
			})
			assert.Equal(t, bare.StatusCode, resp.StatusCode, row.name)
			assert.Equal(t, bareBody, body, row.name)
			if resp.ContentLength < 0 || bare.ContentLength < 0 { // the server knows the length of what a handler has left in its buffer
				resp.Header.Del("Content-Length")
				bare.Header.Del("Content-Length")
			}
			assert.Equal(t, bare.Header, resp.Header, row.name)
			assert.Equal(t, bare.Trailer, resp.Trailer, row.name)
		}
	}
}

func TestAnAnswerIsJudgedOnce(t *testing.T) {
	t.Parallel()
	for _, row := range handlers {
		w, judged := &Writer{Client: httptest.NewRecorder(), Inform: func(int, http.Header) {}}, 0
		var rest bytes.Buffer
		w.Judge = func(whole bool) {
			judged++
			assert.Equal(t, row.whole, whole, row.name)
			assert.Equal(t, row.status, w.Status, row.name)
			assert.Equal(t, row.begun, string(w.Begun), row.name)
			assert.Equal(t, row.length, w.Length(whole), row.name)
			assert.NotEqual(t, "2", w.Head.Get("X-A"), row.name)
			w.Stream(&rest)
		}
		row.do(w, nil)
		w.End()
		assert.Equal(t, 1, judged, row.name)
		assert.True(t, strings.HasPrefix(rest.String(), row.begun), row.name)
		assert.Empty(t, w.Begun, row.name)
	}
}

func TestWhatNobodyWantsGoesNowhere(t *testing.T) {
	t.Parallel()
	client := httptest.NewRecorder()
	w := &Writer{Client: client, Judge: func(bool) {}}
	write(w, "a")
	flush(w)
	n, err := w.Write([]byte("bc"))
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	w.End()
	assert.False(t, client.Flushed)
	assert.Empty(t, client.Body.String())
	assert.Equal(t, "a", string(w.Begun))
}

func TestHijackComesFirst(t *testing.T) {
	t.Parallel()
	resp, body := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		w := &Writer{Client: rw, Judge: func(bool) { t.Error("there is nothing to judge") }}
		conn, _, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		write(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		_, _, err = w.Hijack()
		assert.ErrorIs(t, err, http.ErrNotSupported)
		w.End()
	})
	assert.Equal(t, 204, resp.StatusCode)
	assert.Empty(t, body)
}

func TestPartOfAContentPasses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		skip, n int64
		pieces  []string
		want    string
		told    int // the piece from which on the handler is told
	}{
		{"the beginning", 0, 3, []string{"0123456789"}, "012", 1},
		{"the end", 7, 3, []string{"0123456789"}, "789", 1},
		{"over pieces", 2, 5, []string{"01", "23", "45", "67", "89"}, "23456", 4},
		{"a piece", 2, 2, []string{"01", "23", "45"}, "23", 2},
		{"empty pieces", 0, 1, []string{"", "0", ""}, "0", 3},
		{"less than it was said to be", 2, 5, []string{"0123"}, "23", 1},
	} {
		for _, begun := range []bool{true, false} { // before it is judged
			client := httptest.NewRecorder()
			w := &Writer{Client: client}
			w.Judge = func(bool) { w.PassPart(tt.skip, tt.n) }
			if !begun {
				flush(w)
			}
			told := len(tt.pieces)
			for i, piece := range tt.pieces {
				if n, err := io.WriteString(w, piece); err != nil {
					require.ErrorIs(t, err, errEnough)
					told = min(told, i)
				} else {
					require.Equal(t, len(piece), n)
				}
			}
			w.End()
			assert.Equal(t, tt.want, client.Body.String(), tt.name)
			if !begun {
				assert.Equal(t, tt.told, told, tt.name)
			}
		}
	}
}
