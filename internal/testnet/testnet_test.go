package testnet

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// witness is a test that records how it failed.
type witness struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (w *witness) Helper()          {}
func (w *witness) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }
func (w *witness) Errorf(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}
func (w *witness) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	runtime.Goexit()
}

// run calls f as a test function.
func (w *witness) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func TestSettleWaitsAndGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		Settle(t, "a second", func() bool { return time.Since(start) >= time.Second })
		assert.Equal(t, time.Second, time.Since(start))

		w := &witness{TB: t}
		went := false
		w.run(func() {
			Settle(w, "pigs fly", func() bool { return false })
			went = true
		})
		assert.False(t, went)
		assert.Equal(t, []string{"testnet: pigs fly: not so after 5s"}, w.failures)
	})
}

// Not parallel: it counts the whole process.
func TestBaselineNamesWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{TB: t}
		b := Baseline(w)
		b.Check()
		assert.Empty(t, w.failures)

		stop := make(chan struct{})
		go leak(stop)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		w.cleanups[0]()
		require.Len(t, w.failures, 1)
		assert.Contains(t, w.failures[0], "testnet.leak")
		if _, err := os.Stat("/proc/self/fd"); err == nil {
			assert.Contains(t, w.failures[0], "of socket")
		}

		close(stop)
		require.NoError(t, ln.Close())
		b.Check()
		assert.Len(t, w.failures, 1)
	})
}

func leak(stop chan struct{}) { <-stop }

func TestLogRecorderKeepsOneLineARecord(t *testing.T) {
	t.Parallel()
	l := NewLogRecorder()
	l.Logger().With("k", "v\n\x1b[2J").Debug("first", "n", 1)
	l.Logger().WithGroup("g").Error("second", "x", "\u2028")
	assert.Equal(t, 2, strings.Count(l.Text(), "\n"))
	assert.Len(t, l.Records(t), 2)
	assert.Equal(t, "v\n\x1b[2J", l.Find(t, "first")[0]["k"])
	assert.Empty(t, l.Find(t, "third"))
}

func TestCanariesAreFoundInDisguise(t *testing.T) {
	t.Parallel()
	const token = "TOK_A_4f1d8c0b"
	for _, tc := range []struct {
		text string
		want bool
	}{
		{"x" + token + "y", true},
		{strings.ToLower(token), true},
		{"544f4b5f415f3466316438633062", true},
		{"dXNlcjpUT0tfQV80ZjFkOGMwYg==", true}, // user:…
		{"VE9LX0FfNGYxZDhjMGI=", true},
		{"OlRPS19BXzRmMWQ4YzBi", true}, // :…
		{"TOK_A_4f1d8c0", false},
		{"", false},
	} {
		assert.Equal(t, tc.want, Occurs(tc.text, token), tc.text)
	}

	w := &witness{TB: t}
	Confined(w, token, map[string]string{"a": token, "b": "clean", "log": "leaks " + token}, "a")
	assert.Equal(t, []string{"testnet: " + token + " occurs in log"}, w.failures)
}

func TestMessagesAreBuiltAsWritten(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		Answer(200, "", "hi"):                          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		Answer(200, "A: b\r\nC: d\r\n", ""):            "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\nContent-Length: 0\r\n\r\n",
		Answer(200, "content-length: 9", "hi"):         "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
		Answer(304, "", ""):                            "HTTP/1.1 304 Not Modified\r\n\r\n",
		Answer(103, "Link: x", ""):                     "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
		Get("/x", "A: b"):                              "GET /x HTTP/1.1\r\nHost: gateway.test\r\nA: b\r\n\r\n",
		Get("/x", "host: y"):                           "GET /x HTTP/1.1\r\nhost: y\r\n\r\n",
		Build("PUT", "/", "abc"):                       "PUT / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 3\r\n\r\nabc",
		Build("PUT", "/", "0", "Transfer-Encoding: x"): "PUT / HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: x\r\n\r\n0",
		Chunks("abc", "0123456789abcdef"):              "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
	} {
		assert.Equal(t, want, got)
	}
}
