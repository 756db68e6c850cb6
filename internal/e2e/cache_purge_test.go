package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// purgeTargets are what the tests of purging store, with their tags.
var purgeTargets = []string{"/x", "/x?q=1", "/x?", "/x/", "/x/y", "/x/y/z", "/xy", "/X", "/%78", "/", "/x%2Fy"}

// tagged answers with a tag for each parameter t of the query, in the three
// fields by turns.
func tagged(req *testnet.Request) string {
	header := minute + "\r\nETag: \"v\""
	for n, tag := range strings.Split(field(req, "Tags"), ",") {
		if tag != "" {
			header += fmt.Sprintf([]string{"\r\nSurrogate-Key: %s other", "\r\nCache-Tag: other, %s", "\r\nCache-Groups: \"%s\", \"other\""}[n%3], tag)
		}
	}
	return testnet.Answer(200, header, req.Target)
}

func TestPurgeRemovesWhatItNames(t *testing.T) {
	for _, tt := range []struct {
		what  string
		purge func(*gateway.Cache) int
		gone  []string
	}{
		{"a URI", func(c *gateway.Cache) int { return c.Purge("a", "/x") }, []string{"/x"}},
		{"a URI with a query", func(c *gateway.Cache) int { return c.Purge("a", "/x?q=1") }, []string{"/x?q=1"}},
		{"a URI with an empty query", func(c *gateway.Cache) int { return c.Purge("a", "/x?") }, []string{"/x?"}},
		{"the root", func(c *gateway.Cache) int { return c.Purge("a", "/") }, []string{"/"}},
		{"an escaped URI", func(c *gateway.Cache) int { return c.Purge("a", "/x%2Fy") }, []string{"/x%2Fy"}},
		{"another service's", func(c *gateway.Cache) int { return c.Purge("b", "/x") }, nil},
		{"nobody's", func(c *gateway.Cache) int { return c.Purge("", "/x") }, nil},
		{"what is not there", func(c *gateway.Cache) int { return c.Purge("a", "/none") }, nil},
		{"nonsense", func(c *gateway.Cache) int { return c.Purge("a", "%zz") }, nil},
		{"a prefix", func(c *gateway.Cache) int { return c.PurgePrefix("a", "/x/") }, []string{"/x/", "/x/y", "/x/y/z"}},
		{"a shorter prefix", func(c *gateway.Cache) int { return c.PurgePrefix("a", "/x") }, []string{"/x", "/x?q=1", "/x?", "/x/", "/x/y", "/x/y/z", "/xy", "/x%2Fy"}},
		{"all of a service", func(c *gateway.Cache) int { return c.PurgePrefix("a", "") }, purgeTargets},
		{"a prefix of another service", func(c *gateway.Cache) int { return c.PurgePrefix("b", "/") }, nil},
		{"no tag", func(c *gateway.Cache) int { return c.PurgeTag() }, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(tagged))
				for _, target := range purgeTargets {
					b.get("/a" + target)
				}
				require.EqualValues(t, len(purgeTargets), b.cache.Stats().Entries)
				assert.Equal(t, len(tt.gone), tt.purge(b.cache))
				assert.EqualValues(t, len(purgeTargets)-len(tt.gone), b.cache.Stats().Entries)
				for _, target := range purgeTargets {
					want := "gateway; hit; ttl=60"
					for _, gone := range tt.gone {
						if gone == target {
							want = "gateway; fwd=uri-miss; stored"
						}
					}
					assert.Equal(t, want, b.get("/a"+target).Header.Get("Cache-Status"), target)
				}
			})
		})
	}
}

func TestPurgeTagKnowsThreeFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(tagged))
		for n, tags := range []string{"red", ",red", ",,red", "blue", "Red", ""} {
			b.get(fmt.Sprintf("/a/%d", n), "Tags: "+tags)
		}
		assert.Equal(t, 3, b.cache.PurgeTag("red", "none"), "Surrogate-Key, Cache-Tag and Cache-Groups")
		assert.Equal(t, 0, b.cache.PurgeTag("re", "redd", "Other", "", "red other", `"red"`))
		assert.Equal(t, 2, b.cache.PurgeTag("other"))
		assert.EqualValues(t, 1, b.cache.Stats().Entries)
	})
}

func TestPurgeMeansAllVariantsHostsAndPrefixes(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, storable+"Vary: Foo", "ok")
	})})
	mux := http.NewServeMux()
	mux.Handle("/", r.gw)
	mux.Handle("/one/", http.StripPrefix("/one", r.gw))
	ask := func() {
		for _, raw := range []string{testnet.Get("/a/x"), testnet.Get("/a/x", "Foo: 1"), testnet.Get("/a/x", "Host: other.test"), testnet.Get("/one/a/x")} {
			handle(t, mux, raw, nil)
		}
	}
	ask()
	assert.EqualValues(t, 3, r.cache.Stats().Entries)
	assert.Equal(t, 3, r.cache.Purge("a", "/x"))
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Zero(t, r.cache.Stats().Bytes)
	ask()
	assert.Len(t, r.a.Await(8), 8)
}

func TestExpiredResponsesAreValidated(t *testing.T) {
	for what, expire := range map[string]func(*gateway.Cache) int{
		"a URI":    func(c *gateway.Cache) int { return c.Expire("a", "/x") },
		"a prefix": func(c *gateway.Cache) int { return c.ExpirePrefix("a", "/x") },
		"a tag":    func(c *gateway.Cache) int { return c.ExpireTag("red") },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: minute + "\r\nCache-Tag: red", body: "one"}
				b := newBubble(t, p.script(), gateway.WithoutRetries())
				b.get("/a/x")
				b.get("/a/other")
				time.Sleep(10 * time.Second)
				assert.Equal(t, map[string]int{"a URI": 1, "a prefix": 1, "a tag": 2}[what], expire(b.cache))
				assert.Equal(t, 0, expire(b.cache), "they are stale already")
				b.walk(
					step{body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 3},
					step{body: "one", cache: "hit; ttl=60", asked: 3},
				)
				expire(b.cache)
				p.cut = true
				b.walk(step{body: "one", cache: "fwd=stale; detail=stale-if-error", asked: 4})
			})
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: minute + ", stale-while-revalidate=10\r\nCache-Tag: red", body: "one"}
				b := newBubble(t, p.script())
				b.get("/a/x")
				time.Sleep(time.Second)
				expire(b.cache)
				p.tag, p.body = `"v2"`, "two"
				resp := b.get("/a/x")
				assert.Equal(t, "one", string(resp.Body), "it is refreshed behind the request")
				assert.Equal(t, "gateway; hit; ttl=0", resp.Header.Get("Cache-Status"))
				time.Sleep(time.Second)
				assert.Equal(t, "two", string(b.get("/a/x").Body))
			})
		})
	}
}

// What is on its way when it is purged is not stored; its client gets it.
func TestPurgeReachesWhatIsOnItsWay(t *testing.T) {
	purges := map[string]func(*gateway.Cache) int{
		"Purge":        func(c *gateway.Cache) int { return c.Purge("a", "/x") },
		"PurgePrefix":  func(c *gateway.Cache) int { return c.PurgePrefix("a", "/") },
		"PurgeTag":     func(c *gateway.Cache) int { return c.PurgeTag("red") },
		"Expire":       func(c *gateway.Cache) int { return c.Expire("a", "/x") },
		"ExpirePrefix": func(c *gateway.Cache) int { return c.ExpirePrefix("a", "/") },
		"ExpireTag":    func(c *gateway.Cache) int { return c.ExpireTag("red") },
		"Clear":        func(c *gateway.Cache) int { c.Clear(); return 0 },
	}
	for what, purge := range purges {
		for _, body := range bodies {
			if body.name == "long" && what != "Purge" {
				continue // as a short one
			}
			for _, begun := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %s, begun %t", what, body.name, begun), func(t *testing.T) {
					f := beginFetch(t, "Cache-Tag: red\r\n"+body.header, body.piece, body.last)
					var head *testnet.Response
					if begun {
						close(f.head)
						head = f.leader.ReadHead("GET")
						_, err := io.ReadFull(head, make([]byte, 1))
						require.NoError(t, err)
						assert.Zero(t, purge(f.cache))
					} else {
						assert.Zero(t, purge(f.cache))
						close(f.head)
						head = f.leader.ReadHead("GET")
					}
					close(f.rest)
					assert.EqualValues(t, body.size, restOf(head).Size)
					f.counted(noFailure)
					testnet.Settle(t, "it has ended", func() bool { return f.cache.Stats().Bytes == 0 })
					assert.Zero(t, f.cache.Stats().Entries)
					f.stored(testnet.Get("/a/x"))
				})
			}
		}
	}
}

// An unsafe request names what else it has changed (RFC 9111 §4.4, RFC 9875 §3).
func TestUnsafeRequestsInvalidateWhatTheirAnswersName(t *testing.T) {
	targets := []string{"/x", "/y", "/y?q", "/red", "/other"}
	for _, tt := range []struct {
		what, method, target, header string
		status                       int
		gone                         []string
	}{
		{"its target", "POST", "/x", "", 200, []string{"/x"}},
		{"Location", "POST", "/x", "Location: /y", 201, []string{"/x", "/y"}},
		{"Content-Location", "PUT", "/x", "Content-Location: y?q", 200, []string{"/x", "/y?q"}},
		{"both", "POST", "/x", "Location: /y\r\nContent-Location: /y?q", 201, []string{"/x", "/y", "/y?q"}},
		{"of another origin", "POST", "/x", "Location: http://other.test/y", 201, []string{"/x"}},
		{"of our origin", "POST", "/x", "Location: http://192.0.2.1:80/y", 201, []string{"/x", "/y"}},
		{"as the client would name it", "POST", "/x", "Location: http://gateway.test/a/y", 201, []string{"/x", "/y"}},
		{"as the client would name it, without origin", "PUT", "/x", "Content-Location: /a/y?q", 200, []string{"/x", "/y?q"}},
		{"as the client would name another service", "POST", "/x", "Location: http://gateway.test/b/y", 201, []string{"/x"}},
		{"as the client would name another host", "POST", "/x", "Location: http://www.gateway.test/a/y", 201, []string{"/x"}},
		{"an error", "POST", "/x", "Location: /y", 400, nil},
		{"a group", "POST", "/z", `Cache-Group-Invalidation: "red"`, 200, []string{"/red"}},
		{"a group, on an error", "POST", "/z", `Cache-Group-Invalidation: "red"`, 500, []string{}},
		{"two groups", "POST", "/z", `Cache-Group-Invalidation: "none", "red";x=1`, 200, []string{"/red"}},
		{"no string", "POST", "/z", `Cache-Group-Invalidation: red`, 200, nil},
		{"a safe method", "GET", "/z", `Cache-Group-Invalidation: "red"`, 200, nil},
		{"more groups than can be kept in mind", "POST", "/z", `Cache-Group-Invalidation: "` + strings.Repeat("x", 20<<10) + `"`, 200, targets},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				changing := false
				b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
					if changing {
						return testnet.Answer(tt.status, tt.header, "done")
					}
					header := minute
					if req.Target == "/red" {
						header += "\r\nCache-Groups: \"red\""
					}
					return testnet.Answer(200, header, req.Target)
				}))
				for _, target := range targets {
					b.get("/a" + target)
				}
				changing = true
				require.Equal(t, tt.status, b.ask(testnet.Build(tt.method, "/a"+tt.target, map[bool]string{true: "body"}[tt.method != "GET"])).Status)
				changing = false
				for _, target := range targets {
					gone := !strings.Contains(b.get("/a"+target).Header.Get("Cache-Status"), "; hit")
					assert.Equal(t, strings.Contains(" "+strings.Join(tt.gone, " ")+" ", " "+target+" "), gone, target)
				}
			})
		})
	}
}

// A group is one origin's (RFC 9875 §2.1): what is asked for at other hosts of a
// service is not in it.
func TestGroupsAreInvalidatedAtTheirOrigin(t *testing.T) {
	for what, invalidates := range map[string]string{"a group": `"red"`, "more than can be kept in mind": `"` + strings.Repeat("x", 20<<10) + `"`} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
					if req.Method == "POST" {
						return testnet.Answer(200, "Cache-Group-Invalidation: "+invalidates, "done")
					}
					return testnet.Answer(200, minute+"\r\nCache-Groups: \"red\"", "ok")
				}))
				at := func(host, method string) string {
					raw := strings.Replace(testnet.Build(method, "/a/x", ""), "Host: gateway.test", "Host: "+host, 1)
					require.Contains(t, raw, host)
					return b.ask(raw).Header.Get("Cache-Status")
				}
				for _, host := range []string{"one.test", "two.test"} {
					assert.Equal(t, "gateway; fwd=uri-miss; stored", at(host, "GET"))
				}
				at("TWO.test", "POST")
				assert.Equal(t, "gateway; hit; ttl=60", at("one.test", "GET"))
				assert.Equal(t, "gateway; fwd=uri-miss; stored", at("two.test", "GET"))
			})
		})
	}
}
