package interop_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A download may take longer than every time that is about something else, as
// long as it moves.
func TestLongDownloads(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	piece := noise(64 << 10)
	overVersions(t, func(t *testing.T, client, upstream int) {
		sums := make(chan string, 1)
		up, _ := startVersion(t, upstream, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			sum := sha256.New()
			for began := time.Now(); time.Since(began) < 3*limit; {
				if _, err := io.MultiWriter(sum, w).Write(piece); err != nil {
					break
				}
			}
			sums <- hex.EncodeToString(sum.Sum(nil))
		}))
		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL),
			gateway.WithTimeout(limit), gateway.WithAttemptTimeout(limit), gateway.WithResponseHeaderTimeout(limit))...)
		front, c := startVersion(t, client, gw)
		resp, err := c.Get(front.URL + "/s/")
		require.NoError(t, err)
		defer resp.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, resp.Body)
		require.NoError(t, err)
		assert.Equal(t, <-sums, hex.EncodeToString(sum.Sum(nil)), "%d bytes", n)
		testnet.Settle(t, "the end", func() bool { return gw.Stats().InFlight == 0 })
		assert.Empty(t, gw.Stats().Errors)
	})
}

// duplex answers each line before it reads the next.
func duplex(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // over HTTP/1
	_ = rc.Flush()
	for lines := bufio.NewReader(r.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(w, "re: "+line)
		_ = rc.Flush()
	}
}

// A client reads the response while it sends the request, line by line, over
// either version of HTTP.
func TestFullDuplex(t *testing.T) {
	t.Parallel()
	overVersions(t, func(t *testing.T, client, upstream int) {
		up, _ := startVersion(t, upstream, http.HandlerFunc(duplex))
		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front, c := startVersion(t, client, gw)
		r, w := io.Pipe()
		req, err := http.NewRequestWithContext(within10(t), http.MethodPost, front.URL+"/s/", r)
		require.NoError(t, err)
		resp, err := c.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for n := range 500 {
			_, err := fmt.Fprintf(w, "line %d\n", n)
			require.NoError(t, err)
			back, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("re: line %d\n", n), back)
		}
		require.NoError(t, w.Close())
		rest, err := io.ReadAll(lines)
		require.NoError(t, err)
		assert.Empty(t, rest)
	})
}

// So does one that says itself what goes over the wire; afterwards its
// connection is still of use, at both sides.
func TestFullDuplexByteByByte(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(duplex))
	gw := newGateway(t, gateway.WithService("s", up.URL))
	front := serve(t, gw)
	c := testnet.Dial(t, front.Listener.Addr().String())
	for range 3 {
		c.Send("POST /s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		head := c.ReadHead(http.MethodPost)
		require.Equal(t, http.StatusOK, head.Status, "%v", head.Err)
		require.Equal(t, testnet.Chunked, head.Framing)
		lines := bufio.NewReader(head)
		for n := range 100 {
			text := fmt.Sprintf("line %d\n", n)
			for half := range strings.SplitAfterSeq(text, "e") {
				c.Send(fmt.Sprintf("%x\r\n%s\r\n", len(half), half))
			}
			back, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "re: "+text, back)
		}
		c.Send("0\r\n\r\n")
		_, err := lines.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, testnet.Whole, head.End)
		if head.Header.Get("Connection") == "close" {
			c = testnet.Dial(t, front.Listener.Addr().String()) // the head came before the end of the upload was certain
		}
	}
}

// An upload that ends the response's way is no error: what is behind it is not
// read, and nothing hangs.
func TestUploadThatNobodyReadsToItsEnd(t *testing.T) {
	t.Parallel()
	overVersions(t, func(t *testing.T, client, upstream int) {
		up, _ := startVersion(t, upstream, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			_, _ = io.WriteString(w, "enough")
		}))
		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front, c := startVersion(t, client, gw)
		for range 5 {
			r, w := io.Pipe()
			written := make(chan struct{})
			go func() {
				defer close(written)
				for err := error(nil); err == nil; {
					_, err = w.Write(make([]byte, 1<<10))
				}
			}()
			back := send(t, c, http.MethodPost, front.URL+"/s/", r)
			require.NoError(t, back.err)
			assert.Equal(t, http.StatusRequestEntityTooLarge, back.StatusCode)
			assert.Equal(t, "enough", back.body)
			r.Close()
			within(t, "the upload to end", written)
		}
		testnet.Settle(t, "the end", func() bool { return gw.Stats().InFlight == 0 })
	})
}

// Many uploads and downloads at a time, each its own bytes.
func TestEchoesInParallel(t *testing.T) {
	t.Parallel()
	overVersions(t, func(t *testing.T, client, upstream int) {
		up, _ := startVersion(t, upstream, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.Copy(w, r.Body)
		}))
		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front := start(t, gw, (*httptest.Server).Start)
		c := front.Client()
		if client == 2 {
			front, c = startVersion(t, 2, gw)
		}
		errs := make(chan error, 16)
		for i := range cap(errs) {
			go func() { errs <- echoed(c, front.URL+"/s/", bytes.Repeat([]byte{byte('a' + i)}, 300_000+i)) }()
		}
		for range cap(errs) {
			require.NoError(t, within(t, "an echo", errs))
		}
	})
}

func echoed(c *http.Client, url string, content []byte) error {
	resp, err := c.Post(url, "application/octet-stream", io.NopCloser(bytes.NewReader(content)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	back, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(back, content) {
		err = fmt.Errorf("%d bytes of %d, or others", len(back), len(content))
	}
	return err
}
