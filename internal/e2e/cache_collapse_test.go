package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Who has waited for another's answer, or asks once more, has the time that is
// its own: over connections that stand, too.
func TestLateRequestsHaveTheirTime(t *testing.T) {
	slow := func(answers ...string) func(*testnet.Conn) {
		var n atomic.Int64
		return func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(50*time.Millisecond) && c.Send(answers[min(int(n.Add(1)), len(answers))-1]) {
			}
		}
	}
	t.Run("behind another", func(t *testing.T) {
		r := newRig(t, setup{script: slow(testnet.Answer(200, "Cache-Control: no-store", "mine")), defaults: []gateway.Option{gateway.WithoutRetries()}})
		all := r.crowd(2, testnet.Get("/a/x"))
		assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; detail=no-store": 2}, all.statuses)
		r.counted(noFailure)
	})
	t.Run("once more", func(t *testing.T) {
		r := newRig(t, setup{script: slow(
			testnet.Answer(200, "Cache-Control: public, max-age=0\r\nETag: \"v1\"", "one"),
			testnet.Answer(304, "ETag: \"v2\"", ""),
			testnet.Answer(200, storable, "two"),
		), defaults: []gateway.Option{gateway.WithoutRetries()}})
		require.Equal(t, "one", string(r.get("/a/x").Body))
		assert.Equal(t, "two", string(r.get("/a/x").Body))
		r.counted(noFailure)
	})
}

// fetching is a request under way, whose answer the upstream sends step by step.
type fetching struct {
	*rig
	leader *testnet.Client
	head   chan struct{} // closed: the head and a piece are sent
	rest   chan struct{} // closed: the rest is sent
}

// beginFetch has a client ask for /a/x, which the upstream begins to answer when
// told to.
func beginFetch(t *testing.T, header, piece, last string, defaults ...gateway.Option) *fetching {
	t.Helper()
	f := &fetching{head: make(chan struct{}), rest: make(chan struct{})}
	f.rig = newRig(t, setup{defaults: defaults, script: func(c *testnet.Conn) {
		for c.ReadRequest() != nil {
			receive(f.head)
			c.Send("HTTP/1.1 200 OK\r\n" + storable + header + "\r\n\r\n" + piece)
			receive(f.rest)
			c.Send(last)
		}
	}})
	f.leader = testnet.Dial(t, f.addr)
	f.leader.Send(testnet.Get("/a/x"))
	f.a.Await(1)
	return f
}

// follow has n more clients ask for the same.
func (f *fetching) follow(n int) []*testnet.Client {
	f.Helper()
	before := f.cache.Stats().Misses
	clients := make([]*testnet.Client, n)
	for i := range clients {
		clients[i] = testnet.Dial(f, f.addr)
		clients[i].Send(testnet.Get("/a/x"))
	}
	f.awaitMisses(int(before) + n)
	return clients
}

// served checks that clients get all of the body, and that the upstream was
// asked so often.
func (f *fetching) served(clients []*testnet.Client, size int64, asked int) {
	f.Helper()
	for _, c := range clients {
		resp := c.ReadResponse("GET")
		assert.Equal(f, testnet.Whole, resp.End)
		assert.Equal(f, size, resp.Size)
		c.Close()
	}
	assert.Equal(f, asked, f.a.Begun())
	testnet.Settle(f, "it is stored", func() bool { return f.cache.Stats().Entries == 1 })
	assert.Equal(f, size, f.get("/a/x").Size)
}

func TestFollowersAreServedWhateverTheLeaderDoes(t *testing.T) {
	for _, body := range bodies {
		begin := func(t *testing.T) *fetching { return beginFetch(t, body.header, body.piece, body.last) }
		t.Run(body.name+", leaves before the head", func(t *testing.T) {
			f := begin(t)
			clients := f.follow(5)
			f.leader.Reset()
			close(f.head)
			close(f.rest)
			f.served(clients, body.size, 1)
		})
		t.Run(body.name+", leaves in the body", func(t *testing.T) {
			f := begin(t)
			clients := f.follow(5)
			close(f.head)
			_, err := io.ReadFull(f.leader.ReadHead("GET"), make([]byte, 1))
			require.NoError(t, err)
			f.leader.Reset()
			close(f.rest)
			f.served(clients, body.size, 1)
		})
		t.Run(body.name+", followers come in the body", func(t *testing.T) {
			f := begin(t)
			close(f.head)
			_, err := io.ReadFull(f.leader.ReadHead("GET"), make([]byte, 1))
			require.NoError(t, err)
			clients := f.follow(5)
			f.leader.Reset()
			close(f.rest)
			f.served(clients, body.size, 1)
		})
		t.Run(body.name+", a follower leaves", func(t *testing.T) {
			f := begin(t)
			clients := f.follow(5)
			clients[0].Reset()
			close(f.head)
			_, err := io.ReadFull(clients[1].ReadHead("GET"), make([]byte, 1))
			require.NoError(t, err)
			clients[1].Reset()
			close(f.rest)
			f.served(append(clients[2:], f.leader), body.size, 1)
		})
		t.Run(body.name+", all leave", func(t *testing.T) {
			f := begin(t)
			for _, c := range append(f.follow(5), f.leader) {
				c.Reset()
			}
			close(f.head)
			close(f.rest)
			f.served(nil, body.size, 1)
		})
	}
}

// A leader that does not read holds up nobody.
func TestFollowersDoNotWaitForASlowLeader(t *testing.T) {
	const size = 4 << 20
	for what, header := range map[string]string{"length": fmt.Sprintf("Content-Length: %d", size), "chunked": "Transfer-Encoding: chunked"} {
		t.Run(what, func(t *testing.T) {
			piece, last := strings.Repeat("x", size/2), strings.Repeat("y", size/2)
			if what == "chunked" {
				piece, last = fmt.Sprintf("%x\r\n%s\r\n", size/2, piece), fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size/2, last)
			}
			f := beginFetch(t, header, piece, last)
			clients := f.follow(3)
			close(f.head)
			close(f.rest)
			f.served(clients, size, 1) // the leader has read nothing so far
			assert.EqualValues(t, size, f.leader.ReadResponse("GET").Size)
		})
	}
}

func TestFollowersOfATruncatedBodyAreTold(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			begun, gate := make(chan struct{}), make(chan struct{})
			r := newRig(t, setup{defaults: []gateway.Option{gateway.WithoutRetries()}, script: probed(func(c *testnet.Conn) {
				c.Send("HTTP/1.1 200 OK\r\n" + storable + body.header + "\r\n\r\n" + body.piece)
				close(begun)
				receive(gate)
			})})
			leader := testnet.Dial(t, r.addr)
			leader.Send(testnet.Get("/a/x"))
			require.True(t, receive(begun))
			_, err := io.ReadFull(leader.ReadHead("GET"), make([]byte, 1))
			require.NoError(t, err)
			follower := testnet.Dial(t, r.addr)
			follower.Send(testnet.Get("/a/x"))
			_, err = io.ReadFull(follower.ReadHead("GET"), make([]byte, 1))
			require.NoError(t, err)
			close(gate)
			r.counted(map[gateway.Reason]uint64{gateway.ReasonTruncated: 2})
			assert.Zero(t, r.cache.Stats().Entries)
		})
	}
}

// Who waits for an answer that turns out to be another variant's goes on with
// those that ask for its own.
func TestVariantsOfCollapsedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, variants = 50, 4
		b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
			time.Sleep(time.Second)
			return testnet.Answer(200, storable+"Vary: Foo", field(req, "Foo"))
		}))
		var requests []string
		for n := range each * variants {
			requests = append(requests, testnet.Get("/a/x", fmt.Sprintf("Foo: %d", n%variants)))
		}
		all := b.crowdOf(requests)
		assert.Equal(t, map[string]int{"0": each, "1": each, "2": each, "3": each}, all.bodies)
		assert.Equal(t, variants, b.up.Begun())
		lasted(t, 2*time.Second, all.took)
		for n := range variants { // each is where it is looked for
			resp := b.get("/a/x", fmt.Sprintf("Foo: %d", n))
			assert.Equal(t, fmt.Sprint(n), string(resp.Body))
			assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
		}
	})
}

// Where an upstream says now this and now that in Vary, nobody waits for ever.
func TestVaryThatChangesMakesNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
			time.Sleep(time.Second)
			return testnet.Answer(200, storable+fmt.Sprintf("Vary: Foo, X-%d", n.Add(1)%3), field(req, "Foo"))
		}))
		var requests []string
		for i := range 60 {
			requests = append(requests, testnet.Get("/a/x", fmt.Sprintf("Foo: %d", i), "X-0: "+fmt.Sprint(i), "X-1: "+fmt.Sprint(i)))
		}
		all := b.crowdOf(requests)
		assert.Len(t, all.bodies, 60)
		assert.LessOrEqual(t, all.took, 3*time.Second+blink)
		assert.Equal(t, 60, b.up.Begun())
	})
}

func TestCollapseTimeout(t *testing.T) {
	for _, tt := range []struct {
		what  string
		opts  []gateway.Option
		asked int
		took  time.Duration
	}{
		{"by default after 10 s", nil, 10, 22 * time.Second},
		{"as the operator says", opts(gateway.WithCollapseTimeout(2 * time.Second)), 10, 14 * time.Second},
		{"nobody waits", opts(gateway.WithCollapseTimeout(0)), 10, 12 * time.Second},
		{"longer than the answer takes", opts(gateway.WithCollapseTimeout(time.Minute)), 1, 12 * time.Second},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, slowly(12*time.Second, testnet.Answer(200, storable, "ok")), append(tt.opts, gateway.WithTimeout(0))...)
				all := b.crowd(10, testnet.Get("/a/x"))
				assert.Equal(t, map[string]int{"ok": 10}, all.bodies)
				assert.Equal(t, tt.asked, b.up.Begun())
				lasted(t, tt.took, all.took)
			})
		})
	}
}

// A service may be a way back to this gateway, which must not wait for itself.
func TestServiceThatIsTheGatewayItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := testnet.NewPipeListener()
		b := newBubble(t, slowly(time.Second, testnet.Answer(200, storable, "ok")),
			gateway.WithService("loop", "http://gateway.test/a", gateway.WithDialContext(back.DialContext)),
			gateway.WithService("self", "http://gateway.test/self", gateway.WithDialContext(back.DialContext), gateway.WithoutRetries()),
		)
		go func() { _ = b.srv.Serve(back) }()
		began := time.Now()
		resp := b.get("/loop/x")
		assert.Equal(t, "ok", string(resp.Body))
		lasted(t, time.Second, time.Since(began))
		assert.Equal(t, 508, b.get("/self/x").Status)
		assert.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

// What is too long to be kept is not there for who comes late.
func TestLateFollowersOfALongBodyFetchAlone(t *testing.T) {
	const size = 3 << 20
	piece, last := strings.Repeat("x", size/2), strings.Repeat("y", size/2)
	var asked atomic.Int64
	rest := make(chan struct{})
	r := newRig(t, setup{clean: []gateway.CacheOption{gateway.WithMaxObjectBytes(64 << 10)}, script: func(c *testnet.Conn) {
		for c.ReadRequest() != nil {
			c.Send(fmt.Sprintf("HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", storable, len(piece), piece))
			if asked.Add(1) == 1 {
				receive(rest)
			}
			c.Send(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(last), last))
		}
	}})
	leader := testnet.Dial(t, r.addr)
	leader.Send(testnet.Get("/a/x"))
	head := leader.ReadHead("GET")
	_, err := io.ReadFull(head, make([]byte, size/2))
	require.NoError(t, err)
	for range 2 {
		resp := r.get("/a/x")
		assert.Equal(t, testnet.Whole, resp.End)
		assert.EqualValues(t, size, resp.Size)
		assert.NotContains(t, resp.Header.Get("Cache-Status"), "collapsed")
	}
	close(rest)
	assert.EqualValues(t, size, restOf(head).Size)
	assert.EqualValues(t, 3, asked.Load())
	testnet.Settle(t, "nothing is kept", func() bool { s := r.cache.Stats(); return s.Entries == 0 && s.Bytes == 0 })
}

// What is on its way while its resource is changed is not stored, and nobody
// joins it from then on.
func TestNobodyJoinsWhatWasMadeInvalid(t *testing.T) {
	for _, body := range bodies[:1] {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, begun %t", body.name, begun), func(t *testing.T) {
				var gets atomic.Int64
				rest := make(chan struct{})
				r := newRig(t, setup{script: func(c *testnet.Conn) {
					for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
						if req.Method != "GET" {
							c.Send(testnet.Answer(200, "", "done"))
							continue
						}
						n := gets.Add(1)
						if n > 1 {
							c.Send(testnet.Answer(200, storable, "new"))
							continue
						}
						if begun {
							c.Send("HTTP/1.1 200 OK\r\n" + storable + body.header + "\r\n\r\n" + body.piece)
							receive(rest)
							c.Send(body.last)
						} else {
							receive(rest)
							c.Send("HTTP/1.1 200 OK\r\n" + storable + body.header + "\r\n\r\n" + body.piece + body.last)
						}
					}
				}})
				old := testnet.Dial(t, r.addr)
				old.Send(testnet.Get("/a/x"))
				r.a.Await(1)
				var head *testnet.Response
				if begun {
					head = old.ReadHead("GET")
				}
				require.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "body")).Status)
				assert.Equal(t, "new", string(r.stored(testnet.Get("/a/x")).Body))
				close(rest)
				if begun {
					assert.EqualValues(t, body.size, restOf(head).Size)
				} else {
					assert.EqualValues(t, body.size, old.ReadResponse("GET").Size)
				}
				r.counted(noFailure)
				assert.Equal(t, "new", string(r.get("/a/x").Body), "the old one has not taken its place")
			})
		}
	}
}

// An answer that needs validation before each use answers nobody but who led,
// though others have waited for it (RFC 9111 §4, §5.2.2.4).
func TestWhoWaitsForWhatNeedsValidationAsksByItself(t *testing.T) {
	for _, control := range []string{"no-cache", "max-age=60, no-cache", "max-age=0", "max-age=60\r\nAge: 60"} {
		for _, body := range []string{"short", strings.Repeat("long", 100_000)} {
			t.Run(fmt.Sprintf("%q, %d bytes", control, len(body)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := &page{tag: `"v1"`, header: "Cache-Control: " + control, body: body}
					b := newBubble(t, slowlyOf(time.Second, p))
					const n = 20
					all := b.crowd(n, testnet.Get("/a/x"))
					assert.Equal(t, map[string]int{body: n}, all.bodies)
					assert.Equal(t, n, b.up.Begun())
					lasted(t, 2*time.Second, all.took)
					for status := range all.statuses {
						assert.NotContains(t, status, "collapsed")
					}
					p.header = "Cache-Control: max-age=60"
					again := b.crowd(n, testnet.Get("/a/x")) // nobody waits so soon
					assert.Equal(t, map[string]int{"200 gateway; fwd=stale; fwd-status=304; stored": n}, again.statuses)
					lasted(t, time.Second, again.took)
				})
			})
		}
	}
	t.Run("what took longer than it lives", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, slowlyOf(3*time.Second, &page{tag: `"v1"`, header: "Cache-Control: max-age=1", body: "one"}))
			all := b.crowd(20, testnet.Get("/a/x"))
			assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; stored": 1, "200 gateway; fwd=uri-miss; collapsed": 19}, all.statuses)
			assert.Equal(t, 1, b.up.Begun())
		})
	})
	t.Run("of a handler", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cache, err := gateway.NewCache()
			require.NoError(t, err)
			var calls atomic.Int64
			h := cache.Wrap("pages")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				time.Sleep(time.Second)
				w.Header().Set("Cache-Control", "no-cache")
				w.Header().Set("ETag", `"v1"`)
				_, _ = io.WriteString(w, "page")
			}))
			all := crowdAt(t, h, slices.Repeat([]string{testnet.Get("/x")}, 20))
			assert.EqualValues(t, 20, calls.Load())
			assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; stored": 1, "200 gateway; fwd=stale; stored": 19}, all.statuses)
			require.NoError(t, cache.Shutdown(t.Context()))
		})
	})
}

// slowlyOf answers for the page, each time after that long.
func slowlyOf(d time.Duration, p *page) func(*testnet.Conn) {
	return testnet.Respond(func(r *testnet.Request) string { time.Sleep(d); return p.answer(r) })
}
