package e2e_test

import (
	"flag"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/testnet"
)

// TestAPauseOfTheProcessIsNoTimeout stops the gateway's process for moments, as
// the scheduler of a container does that has used up its share: requests take
// as much longer, and none fails.
func TestAPauseOfTheProcessIsNoTimeout(t *testing.T) {
	if flag.Arg(0) == fewDescriptors {
		serveWithFewDescriptors(t, flag.Arg(1))
		return
	}
	testnet.Baseline(t)
	up := testnet.Upstream(t, testnet.Reply(200, "", "ok"))
	c := startChild(t, up.URL)
	var over atomic.Bool
	var sent, failed atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		client := testnet.Dial(t, c.addr)
		clients.Go(func() {
			for !over.Load() {
				sent.Add(1)
				if resp := client.Do(testnet.Build("POST", "/a/x", "body")); resp.Status != 200 {
					failed.Add(1)
				}
			}
			client.Close()
		})
	}
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for range 100 {
		<-pause.C
		require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
		<-pause.C
		require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	}
	over.Store(true)
	clients.Wait()
	assert.Zero(t, failed.Load(), "of %d", sent.Load())
	assert.Len(t, up.Journal(), int(sent.Load()))
	c.end(t)
}
