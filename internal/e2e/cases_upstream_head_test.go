package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 71: the reason phrase is the gateway's own, and a status line that is
// none is no answer.
func reasonCases() []attackCase {
	var cases []attackCase
	for what, reason := range map[string]string{
		"NUL": "O\x00K", "CR": "O\rK", "ESC": "\x1b[2JOK", "8 kB": strings.Repeat("r", 8<<10), "absent": "", "DEL and bytes above": "\x7f\xff\u2028",
		"CR and a field": "OK\rX-Evil: 1",
	} {
		cases = append(cases, attackCase{71, "reason with " + what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies("HTTP/1.1 200 " + reason + "\r\nContent-Length: 2\r\n\r\nok")})
			resp := r.get("/a/x")
			require.Equal(t, testnet.Whole, resp.End)
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, "OK", resp.Reason)
			assert.NotContains(t, resp.Header, "X-Evil")
			r.counted(noFailure)
			unseen(t, r)
		}})
	}
	for what, line := range map[string]string{
		"ESC in the status": "HTTP/1.1 2\x1b0 OK", "NUL in the status": "HTTP/1.1 20\x00 OK", "ESC in the version": "HTTP/\x1b[2J 200 OK", "no status": "HTTP/1.1",
		"another protocol": "ICY 200 OK", "status 0": "HTTP/1.1 000 OK", "status 99": "HTTP/1.1 099 OK", "status 600": "HTTP/1.1 600 OK", "status 999": "HTTP/1.1 999 OK",
		"a negative status": "HTTP/1.1 -20 OK", "a status of four digits": "HTTP/1.1 2000 OK", "a field in its place": "X-Evil: \x1b[2J",
		"HTTP/2.0": "HTTP/2.0 200 OK", "HTTP/0.9": "HTTP/0.9 200 OK", "HTTP/3.0": "HTTP/3.0 200 OK", "HTTP/1.10": "HTTP/1.10 200 OK", "HTTP/01.1": "HTTP/01.1 200 OK",
		"HTTP/1": "HTTP/1 200 OK", "http/1.1": "http/1.1 200 OK", "a space before it": " HTTP/1.1 200 OK", "an empty line before it": "\r\nHTTP/1.1 200 OK",
	} {
		cases = append(cases, attackCase{71, "status line with " + what, func(t *testing.T) {
			r := refusedHead(t, line+"\r\n"+storable+"Content-Length: 2\r\n\r\nok")
			unseen(t, r)
		}})
	}
	return cases
}

// refusedHead has an upstream send a head that is no acceptable answer.
func refusedHead(t *testing.T, answer string) *rig {
	t.Helper()
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(answer)
		c.Wait()
	})})
	resp := r.get("/a/x")
	assert.Equal(t, 502, resp.Status)
	assert.Equal(t, testnet.Whole, resp.End)
	assert.Less(t, len(resp.Raw), 2<<10)
	r.a.AwaitClosed(1)
	assert.Equal(t, 1, r.a.Begun(), "what is wrong once is not asked for again")
	assert.Zero(t, r.cache.Stats().Entries)
	r.counted(onlyFailure(gateway.ReasonBadResponse))
	return r
}

// unseen checks that no control character reached the log, once decoded.
func unseen(t *testing.T, r *rig) {
	t.Helper()
	records := r.logs.Records(t)
	require.NotEmpty(t, records)
	for _, record := range records {
		for key, value := range record {
			text := fmt.Sprint(value)
			assert.Equal(t, -1, strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' }), "%s=%q", key, text)
			assert.LessOrEqual(t, len(text), 512, key)
		}
	}
}

// Row 73: white space between a name and its colon goes (RFC 9112 §5.1), and
// the field counts.
func spacedFieldCases() []attackCase {
	var cases []attackCase
	for _, c := range []struct{ what, fields, name, value string }{
		{"no-store", "Cache-Control : no-store", "Cache-Control", "no-store"},
		{"no-store beside max-age", "Cache-Control: public, max-age=60\r\nCache-Control : no-store", "Cache-Control", "public, max-age=60, no-store"},
		{"no-store before max-age", "Cache-Control : no-store\r\nCache-Control: public, max-age=60", "Cache-Control", "no-store, public, max-age=60"},
		{"no-store behind a tab", storable + "Cache-Control\t: no-store", "Cache-Control", "public, max-age=60, no-store"},
		{"no-store behind tabs and spaces", storable + "Cache-Control \t \t:no-store", "Cache-Control", "public, max-age=60, no-store"},
		{"no-store in small letters", storable + "cache-control  : no-store", "Cache-Control", "public, max-age=60, no-store"},
		{"no-store, folded", storable + "Cache-Control:\r\n no-store", "Cache-Control", "public, max-age=60, no-store"},
		{"private", storable + "Cache-Control : private", "Cache-Control", "public, max-age=60, private"},
		{"Set-Cookie", storable + "Set-Cookie : id=1", "Set-Cookie", "id=1"},
		{"Vary", storable + "Vary : *", "Vary", "*"},
	} {
		cases = append(cases, attackCase{73, c.what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + c.fields + "\r\n\r\nok")})
			for n := 1; n <= 2; n++ {
				resp := r.get("/a/x")
				require.Equal(t, testnet.Whole, resp.End, "a strict client understands it")
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, c.value, strings.Join(resp.Header[c.name], ", "))
				assert.Len(t, r.a.Await(n), n)
			}
			assert.Zero(t, r.cache.Stats().Entries)
			r.counted(noFailure)
		}})
	}
	for _, framing := range []string{
		"Content-Length : 2", "Content-Length\t: 2", "Content-Length : 2\r\nContent-Length: 2", "Content-Length: 2\r\ncontent-length : 2", "Content-Length:\r\n 2",
		"Transfer-Encoding : chunked", "Transfer-Encoding\t:chunked", "Transfer-Encoding:\r\n chunked", "Content-Length: 2\r\nTransfer-Encoding : chunked",
	} {
		cases = append(cases, attackCase{73, fmt.Sprintf("%q does not frame", framing), func(t *testing.T) {
			refusedHead(t, "HTTP/1.1 200 OK\r\n"+storable+framing+"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
		}})
	}
	return cases
}

// Row 75: a response header is bounded.
func largeHeaderCases() []attackCase {
	head := func(fields string) string { return testnet.Answer(200, storable+fields, "ok") }
	field := "X-Large: " + strings.Repeat("v", 1<<10-len("X-Large: \r\n")) + "\r\n"
	return []attackCase{
		{75, "9 MiB", func(t *testing.T) { refusedHead(t, head(strings.Repeat(field, 9<<10))) }},
		{75, "9 MiB in one field", func(t *testing.T) { refusedHead(t, head("X-Large: "+strings.Repeat("v", 9<<20))) }},
		{75, "without end", func(t *testing.T) {
			r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
				c.Send("HTTP/1.1 200 OK\r\n")
				for c.Send(field) {
				}
			})})
			assert.Equal(t, 502, r.get("/a/x").Status)
			r.a.AwaitClosed(1)
			assert.Equal(t, 1, r.a.Begun())
			r.counted(onlyFailure(gateway.ReasonBadResponse))
		}},
		{75, "1000 fields", func(t *testing.T) { refusedHead(t, head(strings.Repeat("X-N: 1\r\n", 1000))) }},
		{75, "201 fields", func(t *testing.T) { refusedHead(t, head(strings.Repeat("X-N: 1\r\n", 199))) }},
		{75, "64 KiB in one field", func(t *testing.T) { refusedHead(t, head("X-Large: "+strings.Repeat("v", 64<<10))) }},
		{75, "200 fields and 60 KiB are stored, and paid for", func(t *testing.T) {
			large := strings.Repeat(field, 60) + strings.Repeat("X-N: 1\r\n", 138)
			r := newRig(t, setup{script: testnet.Reply(200, storable+large, "ok"), clean: []gateway.CacheOption{gateway.WithMaxBytes(1 << 20)}})
			for range 2 {
				resp := r.get("/a/x")
				require.Equal(t, 200, resp.Status)
				assert.Len(t, resp.Header["X-Large"], 60)
				assert.Len(t, resp.Header["X-N"], 138)
			}
			require.Len(t, r.a.Journal(), 1, "the second is a hit")
			one := r.cache.Stats().Bytes
			assert.GreaterOrEqual(t, one, int64(60<<10))
			for n := range 40 {
				require.Equal(t, 200, r.get(fmt.Sprintf("/a/%d", n)).Status)
			}
			assert.LessOrEqual(t, r.cache.Stats().Bytes, int64(1<<20))
			assert.NotZero(t, r.cache.Stats().Evictions)
			r.counted(noFailure)
		}},
	}
}
