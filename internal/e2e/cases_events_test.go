package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/testnet"
)

const eventStream = "Content-Type: text/event-stream\r\nCache-Control: public, max-age=60\r\n"

// Row 63: an event reaches the client when it was sent, alone, and is for this
// client only.
func eventStreamCases() []attackCase {
	cases := []attackCase{
		{63, "events every 100 ms", eventsInTime},
		{63, "a charset", func(t *testing.T) {
			eventByEvent(t, "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: public, max-age=60\r\nTransfer-Encoding: chunked")
		}},
		{63, "two clients have two streams", eventsOfTwo},
		{63, "nothing is stored", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, eventStream, "data: 1\n\n")})
			for n := 1; n <= 2; n++ {
				resp := r.get("/a/events")
				require.Equal(t, 200, resp.Status)
				assert.Contains(t, resp.Header.Get("Cache-Status"), "detail=event-stream")
				assert.Len(t, r.a.Await(n), n)
			}
			assert.Zero(t, r.cache.Stats().Entries)
			r.counted(noFailure)
		}},
		{63, "drain ends a stream of chunks", func(t *testing.T) {
			resp := drainedEvents(t, testnet.Answer(200, eventStream+"Transfer-Encoding: chunked", "9\r\ndata: 1\n\n\r\n"))
			assert.Equal(t, testnet.Whole, resp.End)
		}},
		{63, "drain ends a stream to the close", func(t *testing.T) {
			resp := drainedEvents(t, "HTTP/1.1 200 OK\r\n"+eventStream+"\r\ndata: 1\n\n")
			assert.Equal(t, testnet.Whole, resp.End)
		}},
		{63, "drain ends a stream of a length, which is short of it", func(t *testing.T) {
			resp := drainedEvents(t, testnet.Answer(200, eventStream+"Content-Length: 100000", "data: 1\n\n"))
			assert.Equal(t, testnet.Truncated, resp.End)
		}},
	}
	for _, mediaType := range []string{"TEXT/Event-Stream", "text/event-stream ;charset=utf-8", "\ttext/event-stream;x=\"a;b\""} {
		cases = append(cases, attackCase{63, fmt.Sprintf("media type %q", mediaType), func(t *testing.T) {
			eventByEvent(t, "Content-Type: "+mediaType+"\r\nCache-Control: public, max-age=60\r\nContent-Length: 100")
		}})
	}
	return cases
}

// eventsInTime runs on a clock of its own: what the client sees is not a
// moment late.
func eventsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 20
		b := newBubble(t, func(c *testnet.Conn) {
			if c.ReadRequest() == nil || !c.Send(testnet.Answer(200, eventStream+"Transfer-Encoding: chunked", "")) {
				return
			}
			for n := range events {
				time.Sleep(100 * time.Millisecond)
				event := fmt.Sprintf("data: %d\n\n", n)
				c.Send(fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
			}
			c.Send("0\r\n\r\n")
		})
		start := time.Now()
		c := b.dial()
		c.Send(testnet.Get("/a/events"))
		resp := c.ReadHead("GET")
		require.Equal(t, 200, resp.Status)
		lasted(t, 0, time.Since(start))
		for n := range events {
			event := fmt.Sprintf("data: %d\n\n", n)
			p := make([]byte, 1<<10)
			got, err := resp.Read(p)
			require.NoError(t, err)
			assert.Equal(t, event, string(p[:got]))
			lasted(t, time.Duration(n+1)*100*time.Millisecond, time.Since(start))
		}
		assert.Equal(t, testnet.Whole, restOf(resp).End)
	})
}

// eventByEvent has an upstream send an event only when the client has the one
// before.
func eventByEvent(t *testing.T, header string) {
	seen := make(chan struct{})
	chunked := strings.Contains(header, "chunked")
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(testnet.Answer(200, header+"\r\nConnection: close", ""))
		for range 10 {
			if !receive(seen) {
				return
			}
			event := "data: 45\n\n"
			if chunked {
				event = "a\r\n" + event + "\r\n"
			}
			c.Send(event)
		}
		if chunked {
			c.Send("0\r\n\r\n")
		}
	})})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/events"))
	resp := c.ReadHead("GET")
	require.Equal(t, 200, resp.Status)
	for n := range 10 {
		seen <- struct{}{}
		p := make([]byte, 1<<10)
		got, _ := resp.Read(p)
		require.Equal(t, "data: 45\n\n", string(p[:got]), "event %d", n)
	}
	assert.Equal(t, testnet.Whole, restOf(resp).End)
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Len(t, r.a.Journal(), 1)
	r.counted(noFailure)
}

func eventsOfTwo(t *testing.T) {
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(testnet.Answer(200, eventStream+"Transfer-Encoding: chunked", "") + fmt.Sprintf("9\r\ndata: %d\n\n\r\n", c.ID))
		c.Wait()
	})})
	var got []string
	for range 2 {
		c := testnet.Dial(t, r.addr)
		c.Send(testnet.Get("/a/events"))
		resp := c.ReadHead("GET")
		require.Equal(t, 200, resp.Status)
		p := make([]byte, 1<<10)
		n, _ := resp.Read(p)
		got = append(got, string(p[:n]))
		defer c.Close()
	}
	assert.Equal(t, []string{"data: 0\n\n", "data: 1\n\n"}, got)
	assert.Equal(t, 2, r.a.Begun(), "not coalesced")
	r.gw.Drain()
	r.counted(noFailure)
}

// drainedEvents begins a stream, drains the gateway and returns what the client
// had of it.
func drainedEvents(t *testing.T, begin string) *testnet.Response {
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(begin)
		c.Wait()
	})})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/events"))
	resp := c.ReadHead("GET")
	require.Equal(t, 200, resp.Status)
	p := make([]byte, 1<<10)
	n, err := resp.Read(p)
	require.NoError(t, err)
	require.Equal(t, "data: 1\n\n", string(p[:n]))
	r.gw.Drain()
	restOf(resp)
	assert.Equal(t, "data: 1\n\n", string(resp.Body), "nothing of ours in the stream")
	r.a.AwaitClosed(1)
	assert.Equal(t, 200, r.get("/b/x").Status, "requests are still served")
	r.counted(noFailure)
	return resp
}

// receive waits for a signal of the test, which may have ended.
func receive(signal <-chan struct{}) bool {
	select {
	case <-signal:
		return true
	case <-time.After(5 * time.Second):
		return false
	}
}
