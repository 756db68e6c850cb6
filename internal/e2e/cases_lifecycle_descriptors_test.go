package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 165: a process that has no descriptors left answers, does not spin, and
// recovers.
func descriptorCases() []attackCase {
	return []attackCase{
		{165, "every new connection to the upstream fails", func(t *testing.T) {
			exhausted(t, testnet.Reply(200, "Connection: close", "ok"), func(c *testnet.Client, child *child) {
				for range 20 {
					resp := c.Do(testnet.Get("/a/x"))
					assert.Equal(t, 502, resp.Status)
					assert.Contains(t, string(resp.Body), `"reason":"connect_failed"`)
					child.failed++
				}
			})
		}},
		{165, "a connection that is there serves on", func(t *testing.T) {
			exhausted(t, testnet.Reply(200, "", "ok"), func(c *testnet.Client, child *child) {
				for range 20 {
					assert.Equal(t, 200, c.Do(testnet.Get("/a/x")).Status)
				}
			})
		}},
	}
}

// fewDescriptors is the word by which a run of this test binary knows that it
// is the child: a gateway with few descriptors.
const fewDescriptors = "few-descriptors"

// child is a process with a gateway in it.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr locked
	addr   string
	failed uint64 // requests that it answered 502
}

// exhausted runs a gateway whose process has 40 descriptors, takes all that are
// left, has inspect look at what it then does, and gives them back.
func exhausted(t *testing.T, script func(*testnet.Conn), inspect func(*testnet.Client, *child)) {
	if flag.Arg(0) == fewDescriptors {
		serveWithFewDescriptors(t, flag.Arg(1))
		return
	}
	testnet.Baseline(t)
	c := startChild(t, testnet.Upstream(t, script).URL)
	first := testnet.Dial(t, c.addr)
	require.Equal(t, 200, first.Do(testnet.Get("/a/x")).Status)

	var crowd []*testnet.Client
	for range 64 {
		crowd = append(crowd, testnet.Dial(t, c.addr))
	}
	testnet.Settle(t, "descriptors are exhausted", func() bool { return strings.Contains(c.stderr.String(), "too many open files") })
	inspect(first, c)

	released := time.Now()
	for _, client := range crowd {
		client.Close()
	}
	testnet.Settle(t, "new clients are served", func() bool {
		resp := testnet.Do(t, c.addr, testnet.Get("/a/x"))
		if resp.Status == 502 {
			c.failed++
		}
		return resp.Status == 200
	})
	assert.LessOrEqual(t, time.Since(released), time.Second)
	first.Close()
	c.end(t)
}

// startChild runs this very test in a process of its own.
func startChild(t *testing.T, upstream string) *child {
	run := "-test.run=^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	c := &child{cmd: exec.CommandContext(t.Context(), "sh", "-c", `ulimit -n 40 && exec "$0" "$@"`, os.Args[0], run, "-test.timeout=30s", fewDescriptors, upstream)}
	stdin, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdin, c.stdout, c.cmd.Stderr = stdin, bufio.NewReader(stdout), &c.stderr
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Wait() }) // in case the test ends early
	line, err := c.stdout.ReadString('\n')
	require.NoError(t, err, "%s", &c.stderr)
	c.addr = strings.TrimSpace(line)
	return c
}

// end ends the child and looks at what it counted.
func (c *child) end(t *testing.T) {
	require.NoError(t, c.stdin.Close())
	var s gateway.Stats
	require.NoError(t, json.NewDecoder(c.stdout).Decode(&s))
	_, err := io.Copy(io.Discard, c.stdout)
	require.NoError(t, err)
	require.NoError(t, c.cmd.Wait(), "%s", &c.stderr)
	want := map[gateway.Reason]uint64{}
	if c.failed > 0 {
		want[gateway.ReasonConnect] = c.failed
	}
	assert.Equal(t, want, s.Errors)
	assert.Zero(t, s.InFlight)
	assert.LessOrEqual(t, s.Retries, 2*c.failed)
	assert.LessOrEqual(t, strings.Count(c.stderr.String(), "\n"), 30, "it does not spin: %s", &c.stderr)
}

// serveWithFewDescriptors is the child: it serves until its standard input
// ends, and writes where, and then its statistics, to its standard output.
func serveWithFewDescriptors(t *testing.T, upstream string) {
	gw, err := gateway.New(gateway.WithService("a", upstream, quickRetries, gateway.WithoutBreaker()))
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: gw, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, srv.Shutdown(ctx))
	require.NoError(t, gw.Shutdown(ctx))
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(gw.Stats()))
}

// locked is a buffer that may be read while it is written.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
