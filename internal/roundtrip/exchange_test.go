package roundtrip

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ways are the round trippers that every exchange is tried through.
func ways(t *testing.T, h http.HandlerFunc, test func(t *testing.T, u *upstream, rt http.RoundTripper, proto string)) {
	for _, scheme := range []string{"http", "https"} {
		t.Run("own="+scheme, func(t *testing.T) {
			u := serve(t, scheme, h)
			test(t, u, u.transport(t, TransportConfig{}), "HTTP/2.0")
		})
	}
	t.Run("callers=http1", func(t *testing.T) {
		u := new(upstream)
		srv := http.Server{Handler: h}
		ln := listen(t)
		go srv.Serve(ln)
		t.Cleanup(func() { srv.Close() })
		u.at(t, "http", ln.Addr().String())
		rt := new(http.Transport)
		t.Cleanup(rt.CloseIdleConnections)
		test(t, u, rt, "HTTP/1.1")
	})
}

func TestExchange(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen", r.Method+" "+r.Host+" "+r.URL.RequestURI()+" "+strings.Join(r.Header["X-List"], "|"))
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("Trailer", "Announced")
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.Write(body)
			w.Header().Set("Announced", r.Trailer.Get("Sum"))
			w.Header().Set(http.TrailerPrefix+"Unannounced", "too")
		case "/304":
			w.WriteHeader(http.StatusNotModified)
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/length":
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		case "/cut":
			w.Header().Set("Content-Length", "50")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/large":
			n, _ := strconv.Atoi(r.URL.RawQuery)
			w.Write(bytes.Repeat([]byte("x"), n))
		}
	}
	ways(t, h, func(t *testing.T, u *upstream, rt http.RoundTripper, proto string) {
		own := strings.HasPrefix(proto, "HTTP/2")
		do := func(x *Exchange) *Exchange {
			x.Own = own
			require.NoError(t, x.Do(rt))
			require.Equal(t, proto, x.Proto)
			return x
		}
		t.Run("GET", func(t *testing.T) {
			x := u.exchange(t, "GET", "/length")
			x.URL.RawQuery, x.Host = "a=%2f", "else.where"
			x.Fields["X-List"] = []string{"one", "two"}
			do(x)
			require.Equal(t, 200, x.Status)
			require.Equal(t, int64(5), x.ContentLength)
			require.True(t, x.Framed)
			require.Equal(t, "GET else.where /length?a=%2f one|two", x.Header.Get("Seen"))
			require.NoError(t, x.More())
			require.NoError(t, x.More())
			require.Equal(t, "hello", text(t, x))
			require.ErrorIs(t, x.More(), io.EOF)
			require.False(t, x.Surplus())
			require.Nil(t, x.Switched())
			x.OnSurplus(nil)
		})
		t.Run("POST with trailers", func(t *testing.T) {
			x := u.exchange(t, "POST", "/echo").with(strings.NewReader("content"))
			x.Trailer = http.Header{"Sum": nil}
			x.Body = &atEnd{x.Body, func() { x.Trailer["Sum"] = []string{"42"} }}
			do(x)
			require.Contains(t, x.Trailers, "Announced")
			require.Equal(t, "content", text(t, x))
			require.Equal(t, http.Header{"Announced": {"42"}, "Unannounced": {"too"}}, x.Trailers)
		})
		t.Run("POST of known length", func(t *testing.T) {
			x := u.exchange(t, "POST", "/echo").with(strings.NewReader("content"))
			x.Length = 7
			require.Equal(t, "content", text(t, do(x)))
		})
		t.Run("POST of no length", func(t *testing.T) {
			x := u.exchange(t, "POST", "/echo").with(strings.NewReader("never read"))
			x.Length = 0
			require.Empty(t, text(t, do(x)))
		})
		t.Run("HEAD", func(t *testing.T) {
			x := do(u.exchange(t, "HEAD", "/length"))
			require.Equal(t, int64(5), x.ContentLength)
			require.Empty(t, text(t, x))
		})
		for _, path := range []string{"/204", "/304"} {
			t.Run(path, func(t *testing.T) {
				x := do(u.exchange(t, "GET", path))
				require.Equal(t, path, "/"+strconv.Itoa(x.Status))
				require.Empty(t, text(t, x))
			})
		}
		for _, size := range []int{1, smallSize - 1, smallSize, smallSize + 1, largeSize, largeSize + 1, 1 << 20} {
			t.Run("size="+strconv.Itoa(size), func(t *testing.T) {
				x := u.exchange(t, "GET", "/large")
				x.URL.RawQuery = strconv.Itoa(size)
				require.Equal(t, size, len(text(t, do(x))))
				require.Nil(t, x.content.small)
				require.Nil(t, x.content.large)
			})
		}
		t.Run("read and next", func(t *testing.T) {
			x := do(u.exchange(t, "GET", "/length"))
			require.NoError(t, x.More())
			p := make([]byte, 2)
			n, err := x.Read(p)
			require.NoError(t, err)
			require.Equal(t, "he", string(p[:n]))
			n, err = x.Read(nil)
			require.NoError(t, err)
			require.Zero(t, n)
			piece, err := x.Next()
			require.NoError(t, err)
			require.Equal(t, "llo", string(piece))
			_, err = x.Read(p)
			require.ErrorIs(t, err, io.EOF)
		})
		t.Run("truncated", func(t *testing.T) {
			x := do(u.exchange(t, "GET", "/cut"))
			_, err := io.ReadAll(x)
			var broken *BrokenError
			require.ErrorAs(t, err, &broken)
			require.True(t, broken.Heard)
			require.False(t, broken.Unsent)
			_, again := x.Next()
			require.Equal(t, err, again)
		})
		t.Run("closed early", func(t *testing.T) {
			x := u.exchange(t, "GET", "/large")
			x.URL.RawQuery = "1000000"
			require.NoError(t, do(x).More())
			x.Close()
			x.Close()
			_, err := x.Next()
			require.ErrorIs(t, err, errClosed)
		})
	})
}

// atEnd calls a function when its content has come to its end.
type atEnd struct {
	io.ReadCloser
	f func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == io.EOF {
		a.f()
	}
	return n, err
}
