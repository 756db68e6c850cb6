package roundtrip

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// exchangeOnce is a GET, read to its end.
func exchangeOnce(t testing.TB, rt http.RoundTripper, u *upstream) {
	x := &Exchange{Context: t.Context(), Method: "GET", URL: u.url, Own: true, Idle: time.Minute, Head: time.Now().Add(time.Minute)}
	if err := x.Do(rt); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := x.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	x.Close()
}

// canned answers from memory.
func canned(content []byte) roundTripper {
	header := http.Header{"Content-Type": {"text/plain"}}
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ProtoMajor: 2, Header: header, ContentLength: int64(len(content)), Body: io.NopCloser(bytes.NewReader(content))}, nil
	}
}

// What an exchange costs above the round trip itself.
func TestExchangeAllocations(t *testing.T) {
	if raceEnabled {
		return // the detector allocates, and empties pools
	}
	rt, u := canned(make([]byte, 1<<10)), new(upstream)
	bare := testing.AllocsPerRun(200, func() {
		req := (&http.Request{}).WithContext(t.Context())
		resp, _ := rt.RoundTrip(req)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	})
	ours := testing.AllocsPerRun(200, func() { exchangeOnce(t, rt, u) })
	require.LessOrEqual(t, ours-bare, 17.0)
}

func BenchmarkExchange(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"1KiB", 1 << 10}, {"100KiB", 100 << 10}} {
		content := make([]byte, size.n)
		u := serve(b, "http", func(w http.ResponseWriter, _ *http.Request) { w.Write(content) })
		b.Run("rt=canned/size="+size.name, func(b *testing.B) {
			b.ReportAllocs()
			rt := canned(content)
			for b.Loop() {
				exchangeOnce(b, rt, u)
			}
		})
		b.Run("rt=own/size="+size.name, func(b *testing.B) {
			b.ReportAllocs()
			tr := u.transport(b, TransportConfig{})
			for b.Loop() {
				exchangeOnce(b, tr, u)
			}
		})
		b.Run("rt=std/size="+size.name, func(b *testing.B) { // without any of ours, to compare
			b.ReportAllocs()
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			tr := &http.Transport{Protocols: protocols}
			defer tr.CloseIdleConnections()
			buf := make([]byte, largeSize)
			for b.Loop() {
				req, _ := http.NewRequestWithContext(b.Context(), "GET", u.url.String(), nil)
				resp, err := tr.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
				resp.Body.Close()
			}
		})
	}
}

func BenchmarkUpload(b *testing.B) {
	u := serve(b, "http", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	tr := u.transport(b, TransportConfig{})
	content := strings.Repeat("x", 10<<10)
	b.ReportAllocs()
	for b.Loop() {
		x := (&Exchange{Context: b.Context(), Method: "POST", URL: u.url, Own: true, Idle: time.Minute}).with(strings.NewReader(content))
		if err := x.Do(tr); err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}
