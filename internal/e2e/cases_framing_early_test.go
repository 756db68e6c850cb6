package e2e_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// roundTripper is a func as http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answered is a response without content.
func answered(status int) *http.Response {
	return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody}
}

// Rows 9 and 11, when the answer is there before the body, or although the body
// is broken: what is left of it, or stands where it should be, is never taken
// for a request.
func earlyAnswerCases() []attackCase {
	smuggled := testnet.Get("/b/smuggled")
	broken := func(status int) func(*testing.T) {
		return func(t *testing.T) {
			sent := 0
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithTransport(roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.Body == nil {
					return answered(200), nil
				}
				sent++
				_, err := io.ReadAll(req.Body)
				assert.Error(t, err, "the body does not end well")
				_ = req.Body.Close()
				return answered(status), nil
			}))}})
			tr := r.exchange(testnet.Build("PUT", "/a/x", "", "Transfer-Encoding: chunked") + "5\r\nbegun\r\n0x3\r\n" + smuggled)
			assert.Equal(t, []int{400}, tr.Statuses(), "who has not sent a request gets no answer to it")
			assert.Equal(t, testnet.Closed, tr.End)
			assert.Zero(t, r.b.Begun())
			assert.Equal(t, 1, sent, "not sent again")
			r.recorded(1, onlyFailure(gateway.ReasonClientBody))
		}
	}
	unread := func(status int, want map[gateway.Reason]uint64, script func(*testnet.Conn), opts ...gateway.ServiceOption) func(*testing.T, way) {
		return func(t *testing.T, w way) {
			r := newRig(t, setup{way: w, script: script, a: opts})
			r.broken = true
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Build("POST", "/a/x", "", long) + "begun")
			resp := c.ReadResponse("POST")
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, "close", resp.Header.Get("Connection"))
			c.Send(smuggled)
			rest, end := c.ReadRest()
			assert.Empty(t, rest)
			assert.Equal(t, testnet.Closed, end)
			assert.Zero(t, r.b.Begun())
			r.recorded(1, want)
		}
	}
	heads := func(answer string) func(*testnet.Conn) {
		return func(c *testnet.Conn) {
			for req := c.ReadHead(); req != nil; req = c.ReadHead() {
				if req.Target == "/" {
					c.Send(testnet.Answer(200, "", "well"))
					continue
				}
				if answer == "" {
					c.Wait()
				}
				c.Send(answer)
			}
		}
	}
	return []attackCase{
		{9, "answered 200 all the same", broken(200)},
		{9, "answered 404 all the same", broken(404)},
		{9, "answered 503, after which it is not sent again", broken(503)},
		bothWays(11, "answered 200 early", unread(200, noFailure, heads(testnet.Answer(200, "", "early")))),
		bothWays(11, "answered 413 early", unread(413, noFailure, heads(testnet.Answer(413, "", "early")))),
		bothWays(11, "no answer in time", unread(504, onlyFailure(gateway.ReasonTimeout), heads(""), gateway.WithAttemptTimeout(20*time.Millisecond), gateway.WithoutRetries())),
		bothWays(11, "an answer that is none", unread(502, onlyFailure(gateway.ReasonBadResponse), heads(testnet.Answer(999, "", "")))),
		bothWays(11, "an answer with too much of a header", unread(502, onlyFailure(gateway.ReasonBadResponse), heads(testnet.Answer(200, strings.Repeat("X: v\r\n", 300), "")))),
		bothWays(11, "a hook's failure", unread(502, onlyFailure(gateway.ReasonHook), heads(testnet.Answer(200, "", "early")),
			gateway.WithModifyResponse(func(*http.Response) error { return errors.New("no") }))),
		bothWays(11, "a hook's panic", unread(500, onlyFailure(gateway.ReasonPanic), heads(testnet.Answer(200, "", "early")),
			gateway.WithModifyResponse(func(*http.Response) error { panic("no") }))),
		{11, "an attempt that does not read it", func(t *testing.T) {
			unread(502, onlyFailure(gateway.ReasonUpstreamFailed), nil,
				gateway.WithTransport(roundTripper(func(req *http.Request) (*http.Response, error) {
					if req.Body == nil {
						return answered(200), nil
					}
					return nil, errors.New("broke")
				})))(t, direct)
		}},
	}
}
