package e2e_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// deadCases are section 5, upstreams that do not answer or cannot be found.
func deadCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{muteCases(), unnamedCases(), movedCases()} {
		cases = append(cases, more...)
	}
	return cases
}

// Row 83: an upstream that accepts and never answers.
func muteCases() []attackCase {
	ends := func(request string, limit time.Duration, opts ...gateway.Option) func(*testing.T) {
		return func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, (*testnet.Conn).Wait, append(opts, gateway.WithoutRetries())...)
				start := time.Now()
				resp := b.dial().Do(request)
				assert.Equal(t, 504, resp.Status)
				lasted(t, limit, time.Since(start))
				b.counted(onlyFailure(gateway.ReasonTimeout))
				b.up.AwaitClosed(1)
			})
		}
	}
	get, post := testnet.Get("/a/x"), testnet.Build("POST", "/a/x", "body")
	return []attackCase{
		{83, "GET, by the whole time", ends(get, 2*time.Second, gateway.WithTimeout(2*time.Second))},
		{83, "POST, by the whole time", ends(post, 2*time.Second, gateway.WithTimeout(2*time.Second))},
		{83, "GET, by the time of an attempt", ends(get, time.Second, gateway.WithAttemptTimeout(time.Second))},
		{83, "its connection is free again", func(t *testing.T) {
			up := testnet.Upstream(t, (*testnet.Conn).Wait)
			e := newEngine(t, up.URL, gateway.WithMaxConns(1), gateway.WithResponseHeaderTimeout(30*time.Millisecond), gateway.WithoutRetries(), gateway.WithoutBreaker())
			for n := range 5 {
				status, _, body := e.do("GET", "/")
				require.Equal(t, 504, status, body)
				require.Zero(t, e.stats().Replicas[0].Conns.Open)
				require.Equal(t, n+1, up.Conns())
			}
			up.AwaitClosed(5)
		}},
		{83, "the breaker counts", func(t *testing.T) {
			up := testnet.Upstream(t, (*testnet.Conn).Wait)
			e := newEngine(t, up.URL, gateway.WithResponseHeaderTimeout(30*time.Millisecond), gateway.WithoutRetries(), gateway.WithBreaker(0.5, 3), gateway.WithoutEjection())
			var statuses []int
			for range 5 {
				status, _, _ := e.do("GET", "/")
				statuses = append(statuses, status)
			}
			assert.Equal(t, []int{504, 504, 504, 503, 503}, statuses)
			assert.Equal(t, gateway.BreakerOpen, e.stats().Breaker.State)
			assert.Equal(t, 3, up.Begun())
		}},
		{83, "no handshake", func(t *testing.T) {
			up := testnet.Upstream(t, func(c *testnet.Conn) { _, _ = io.Copy(io.Discard, c) })
			e := newEngine(t, strings.Replace(up.URL, "http:", "https:", 1), gateway.WithTLSHandshakeTimeout(50*time.Millisecond), gateway.WithoutRetries())
			start := time.Now()
			status, _, _ := e.do("GET", "/")
			assert.Contains(t, []int{502, 504}, status)
			assert.Less(t, time.Since(start), time.Second)
			up.AwaitClosed(1)
		}},
	}
}

// names is a DNS server over UDP, that the whole process asks until the test
// ends.
type names struct {
	mu    sync.Mutex
	code  byte         // of its answers
	mute  bool         // it does not answer
	addrs []netip.Addr // of any name
	asked int
}

func newNames(t *testing.T, addrs ...string) *names {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &names{}
	n.move(addrs...)
	var serving sync.WaitGroup
	serving.Go(func() { n.serve(conn) })
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		serving.Wait()
	})
	return n
}

// move has all names be at other addresses.
func (n *names) move(addrs ...string) {
	n.set(func(n *names) {
		n.addrs = nil
		for _, a := range addrs {
			n.addrs = append(n.addrs, netip.MustParseAddr(a))
		}
	})
}

func (n *names) set(f func(*names)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

// questions is how many have come.
func (n *names) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *names) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := n.answer(buf[:size]); answer != nil {
			_, _ = conn.WriteTo(answer, from)
		}
	}
}

// answer answers a question of RFC 1035 §4.
func (n *names) answer(question []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	end := 12
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5
	if n.mute || end > len(question) {
		return nil
	}
	kind := binary.BigEndian.Uint16(question[end-4:])
	answer := append([]byte{question[0], question[1], 0x81, 0x80 | n.code, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
	for _, a := range n.addrs {
		if n.code != 0 || a.Is4() != (kind == 1) || a.Is6() != (kind == 28) {
			continue
		}
		answer[7]++
		answer = append(answer, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(a.AsSlice())))
		answer = append(answer, a.AsSlice()...)
	}
	return answer
}

// Row 85: names that cannot be resolved, addresses that cannot be reached.
func unnamedCases() []attackCase {
	const limit = 300 * time.Millisecond
	fails := func(set func(n *names), statuses ...int) func(*testing.T) {
		return func(t *testing.T) {
			n := newNames(t)
			n.set(set)
			e := newEngine(t, "http://up.test:1", gateway.WithDialTimeout(limit), gateway.WithoutRetries())
			start := time.Now()
			status, _, body := e.do("GET", "/")
			assert.Contains(t, statuses, status, body)
			assert.Less(t, time.Since(start), limit+time.Second)
			assert.NotContains(t, body, "up.test", "it is nothing for clients")
			assert.Positive(t, n.questions())
		}
	}
	return []attackCase{
		{85, "NXDOMAIN", fails(func(n *names) { n.code = 3 }, 502)},
		{85, "SERVFAIL", fails(func(n *names) { n.code = 2 }, 502)},
		{85, "no address", fails(func(*names) {}, 502)},
		{85, "no answer", fails(func(n *names) { n.mute = true }, 502, 504)},
		{85, "a dial that takes too long", func(t *testing.T) {
			dial := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
			e := newEngine(t, "http://up.test", gateway.WithDialContext(dial), gateway.WithDialTimeout(50*time.Millisecond), gateway.WithoutRetries())
			start := time.Now()
			status, _, _ := e.do("GET", "/")
			assert.Contains(t, []int{502, 504}, status)
			assert.Less(t, time.Since(start), time.Second)
			assert.Zero(t, e.stats().Replicas[0].Conns.Open)
		}},
		{85, "IPv6 into a hole (RFC 6666), IPv4 answers", func(t *testing.T) {
			newNames(t, "100::1", "127.0.0.1")
			up, _ := server(t, "four", nil)
			_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
			e := newEngine(t, "http://up.test:"+port, gateway.WithDialTimeout(2*time.Second))
			start := time.Now()
			status, _, body := e.do("GET", "/")
			assert.Equal(t, 200, status)
			assert.Equal(t, "four", body)
			assert.Less(t, time.Since(start), time.Second, "RFC 8305 §5: the other family is tried soon")
		}},
	}
}

// Row 85: a name that moves, though what answers at the former address lives on.
func movedCases() []attackCase {
	const within = 300 * time.Millisecond
	moves := func(opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			_, _, port := twins(t)
			n := newNames(t, "127.0.0.1")
			e := newEngine(t, "http://up.test:"+port, opts...)
			for range 20 {
				status, _, body := e.do("GET", "/")
				require.Equal(t, "200 first", fmt.Sprint(status, " ", body))
			}
			n.move("127.0.0.2")
			moved := time.Now()
			last := moved // when the former address was asked
			for time.Since(moved) < 2*within {
				status, _, body := e.do("GET", "/")
				require.Equal(t, 200, status, "nothing is lost by the move")
				if body == "first" {
					last = time.Now()
				}
			}
			assert.Less(t, last.Sub(moved), within+within/5)
			_, _, body := e.do("GET", "/")
			assert.Equal(t, "second", body)
		}
	}
	return []attackCase{
		{85, "the name moves, connections have an age", moves(gateway.WithMaxConnAge(within))},
		{85, "the name moves, and is resolved again and again", moves(gateway.WithDNSRefresh(within / 10))},
		{85, "the name is gone: what was known stays", func(t *testing.T) {
			_, _, port := twins(t)
			n := newNames(t, "127.0.0.1", "127.0.0.2")
			e := newEngine(t, "http://up.test:"+port, gateway.WithDNSRefresh(20*time.Millisecond))
			e.do("GET", "/")
			testnet.Settle(t, "both are known", func() bool { return len(e.stats().Replicas) == 2 })
			n.set(func(n *names) { n.code = 3 })
			asked := n.questions()
			testnet.Settle(t, "it was asked again", func() bool { return n.questions() > asked+4 })
			assert.Len(t, e.stats().Replicas, 2)
			status, _, _ := e.do("GET", "/")
			assert.Equal(t, 200, status)
		}},
		{85, "addresses come and go under load", func(t *testing.T) {
			_, _, port := twins(t)
			n := newNames(t, "127.0.0.1")
			e := newEngine(t, "http://up.test:"+port, gateway.WithDNSRefresh(10*time.Millisecond))
			seen := map[string]int{}
			for i := range 300 {
				n.move([]string{"127.0.0.1", "127.0.0.2"}[i/100%2:][:1]...)
				status, _, body := e.do("GET", "/")
				require.Equal(t, 200, status)
				seen[body]++
			}
			assert.NotEmpty(t, seen)
		}},
	}
}

// twins are two servers on one port of 127.0.0.1 and 127.0.0.2.
func twins(t *testing.T) (first, second *httptest.Server, port string) {
	name := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
	}
	first = httptest.NewServer(name("first"))
	t.Cleanup(first.Close)
	_, port, _ = net.SplitHostPort(first.Listener.Addr().String())
	ln, err := net.Listen("tcp", "127.0.0.2:"+port)
	require.NoError(t, err)
	second = httptest.NewUnstartedServer(name("second"))
	_ = second.Listener.Close()
	second.Listener = ln
	second.Start()
	t.Cleanup(second.Close)
	return first, second, port
}
