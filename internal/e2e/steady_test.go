package e2e_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// steady is an upstream that is always well: it answers as the path's first segment
// says, with its own name.
func steady(name string) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			kind, _, _ := strings.Cut(strings.TrimPrefix(req.Target, "/"), "/")
			head, pieces := "HTTP/1.1 200 OK\r\n", []string{name}
			switch kind {
			case "fresh":
				head += "Cache-Control: max-age=1\r\n"
			case "late":
				if !c.Pause(time.Duration(rand.IntN(3000)) * time.Millisecond) {
					return
				}
			case "big":
				head += "Cache-Control: max-age=2\r\n"
				for range 6 {
					pieces = append(pieces, strings.Repeat(name[:1], 40_000))
				}
			case "events":
				head += "Content-Type: text/event-stream\r\n"
				pieces = append(pieces, "data: 1\n\n", "data: 2\n\n")
			case "socket":
				c.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + testnet.WebSocketAccept + "\r\n\r\n")
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				return
			}
			c.Send(head + "Transfer-Encoding: chunked\r\n\r\n")
			for i, piece := range pieces {
				if i > 0 && !c.Pause(time.Duration(rand.IntN(500))*time.Millisecond) {
					return
				}
				c.Send(fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
			}
			if !c.Send("0\r\n\r\n") {
				return
			}
		}
	}
}

// anyOf picks one.
func anyOf[T any](all ...T) T { return all[rand.IntN(len(all))] }

// Updates, and new replicas, cost no request that is under way anything, nor one that
// comes, whatever they change.
func TestNoRequestIsTheWorseForAnUpdate(t *testing.T) {
	names := []string{"one", "two", "three"}
	scripts := map[string]func(*testnet.Conn){}
	for _, name := range names {
		scripts[name] = steady(name)
	}
	inTown(t, scripts, func(w *town) {
		caches := [2]*gateway.Cache{}
		for i := range caches {
			var err error
			caches[i], err = gateway.NewCache()
			require.NoError(w, err)
		}
		list := func() []gateway.Option {
			opts := []gateway.ServiceOption{
				gateway.WithMaxTunnels(1000),
				anyOf(gateway.WithMaxConns(200), gateway.WithMaxConns(300)), gateway.WithMinConns(rand.IntN(4)),
				anyOf(gateway.WithMaxConcurrency(100, 100, 0), gateway.WithMaxConcurrency(3, 1000, 0), gateway.WithoutMaxConcurrency()),
				anyOf(gateway.WithBreaker(0.5, 3), gateway.WithoutBreaker()),
				anyOf(gateway.WithHealthChecks(100*time.Millisecond, 1, 1), gateway.WithHealthChecks(time.Second, 1, 1), gateway.WithoutHealthChecks()),
				anyOf(gateway.WithHedge(time.Second), gateway.WithHedge(0)),
				anyOf(gateway.WithCache(caches[0]), gateway.WithCache(caches[1]), gateway.WithoutCache()),
				anyOf(gateway.WithReplicas(gateway.Replica{URL: "http://two"}, gateway.Replica{URL: "http://three"}), gateway.WithReplicas(gateway.Replica{URL: "http://one", Weight: 3})),
				gateway.WithBalancing(anyOf(gateway.RoundRobin(), gateway.HashPath(), gateway.PowerOfTwo())),
				anyOf(gateway.WithConnIdleTimeout(time.Second), gateway.WithMaxConnAge(time.Second)),
				anyOf(gateway.WithRateLimit(1e6, 1e6), gateway.WithoutRateLimit()),
				anyOf(gateway.WithSlowRequest(time.Second, nil), gateway.WithSlowRequest(20*time.Millisecond, nil), gateway.WithoutSlowRequest()),
				anyOf(gateway.WithSlowStart(time.Second), gateway.WithEjection(3, time.Second, time.Second)),
			}
			if rand.IntN(8) == 0 {
				opts = append(opts[:1], gateway.WithoutConnReuse())
			}
			return []gateway.Option{at("a", anyOf(names...), opts...), at(fmt.Sprint("guest", rand.IntN(3)), "two", opts...)}
		}
		w.update(list()...)
		up := w.gw.Upstream("a")
		done := make(chan struct{})
		var wg sync.WaitGroup
		var served atomic.Int64
		for range 30 {
			wg.Go(func() {
				for range 50 {
					served.Add(w.visit())
				}
			})
		}
		go func() { wg.Wait(); close(done) }()
		for going := true; going; {
			select {
			case <-done:
				going = false
			case <-time.After(time.Duration(rand.IntN(200)) * time.Millisecond):
				switch rand.IntN(6) {
				case 0:
					n := rand.IntN(3)
					require.NoError(w, up.SetReplicas(gateway.Replica{URL: "http://" + names[n]}, gateway.Replica{URL: "http://" + names[(n+1)%3], Weight: 2}))
				case 1:
					caches[rand.IntN(2)].Purge("a", "/big/1")
				case 2:
					caches[rand.IntN(2)].Clear()
				default:
					require.NoError(w, w.gw.Update(append(w.common[:len(w.common):len(w.common)], list()...)...))
				}
			}
		}
		time.Sleep(time.Minute)
		atRest(w, w.gw, "a")
		s := w.gw.Stats()
		assert.Empty(w, s.Errors)
		assert.Zero(w, s.Failed)
		assert.EqualValues(w, served.Load(), s.Requests)
		assert.Empty(w, w.logs.Find(w, "gateway: panic"))
		for _, c := range caches {
			require.NoError(w, c.Shutdown(w.Context()))
		}
	})
}

// visit is one client with a few requests, who expects to be served.
func (w *town) visit() (served int64) {
	c := w.client()
	defer c.Close()
	for range 1 + rand.IntN(3) {
		kind := []string{"ok", "fresh", "fresh", "late", "big", "events", "socket"}[rand.IntN(7)]
		target := fmt.Sprintf("/a/%s/%d", kind, rand.IntN(3))
		served++
		if kind == "socket" {
			c.Send(testnet.WebSocket(target))
			if resp := c.ReadResponse("GET"); !assert.Equal(w, 101, resp.Status, "%s", resp) {
				return served
			}
			frame := "\x81\x85\x00\x00\x00\x00hello"
			c.Send(frame)
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
			c.Send(frame)
			assert.Equal(w, frame+frame, c.ReadN(2*len(frame)))
			return served
		}
		method, body := "GET", ""
		if rand.IntN(5) == 0 {
			method, body = "POST", strings.Repeat("p", rand.IntN(50_000))
		}
		c.Send(testnet.Build(method, target, body))
		resp := c.ReadResponse(method)
		if !assert.Equal(w, 200, resp.Status, "%s %s: %s %s", method, target, resp, resp.Body) || !assert.Equal(w, testnet.Whole, resp.End, "%s %s: %s", method, target, resp) {
			return served
		}
		if got := string(resp.Body); kind == "big" {
			name := strings.TrimRight(got[:5], got[:1])
			assert.Equal(w, name+strings.Repeat(name[:1], 240_000), got, "of one upstream, and all of it")
		}
	}
	return served
}
