package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTourFindsAllAsPromised(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	began := time.Now()
	require.NoError(t, run(t.Context(), []string{"-tour"}, &out, t.Output()), "%s", &out)
	assert.Less(t, time.Since(began), tourTime)
	assert.Contains(t, out.String(), "All as promised.")
}

func TestTourMissesEachFeature(t *testing.T) {
	t.Parallel()
	cases := []struct {
		without feature
		failed  []string // the step that shows the feature, and those that need it
	}{
		{"", nil},
		{routing, []string{"route", "token", "cache", "explain", "health", "metrics", "dashboard"}},
		{token, []string{"token"}},
		{caching, []string{"cache", "explain"}},
		{explaining, []string{"explain"}},
		{reporting, []string{"slow request"}},
		{retries, []string{"retry"}},
		{refusal, []string{"unknown service"}},
		{timeouts, []string{"timeout"}},
		{replicas, []string{"replicas"}},
		{breaking, []string{"breaker"}},
		{hedging, []string{"hedging"}},
		{streaming, []string{"events", "drain"}},
		{websockets, []string{"websocket", "drain"}},
		{health, []string{"health"}},
		{metrics, []string{"metrics"}},
		{dashboard, []string{"dashboard"}},
		{updating, []string{"update"}},
		{draining, []string{"drain"}},
	}
	type outcome struct {
		failed []string
		err    error
		text   bytes.Buffer
	}
	outcomes := make([]outcome, len(cases))
	var tours sync.WaitGroup
	for i, c := range cases { // all at once: a tour mostly waits
		tours.Go(func() {
			o := &outcomes[i]
			o.failed, o.err = takeSteps(t.Context(), settings{without: c.without}, &o.text)
		})
	}
	tours.Wait()
	for i, c := range cases {
		t.Run("without "+string(c.without), func(t *testing.T) {
			require.NoError(t, outcomes[i].err)
			assert.Equal(t, c.failed, outcomes[i].failed, "%s", &outcomes[i].text)
		})
	}
}

func TestTourWithAFailedStepFails(t *testing.T) {
	t.Parallel()
	assert.EqualError(t, runTour(t.Context(), settings{without: token}, io.Discard), "not as promised: token")
}

// pages is the demo's output, as far as a test waits for it.
type pages struct {
	url  chan string
	mu   sync.Mutex // the app and its spans write at once
	text bytes.Buffer
}

var appURL = regexp.MustCompile(`The app: +(\S+)/\n`)

func (p *pages) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := appURL.FindSubmatch(b); m != nil {
		p.url <- string(m[1])
	}
	return p.text.Write(b)
}

func TestInterruptDrainsTheDemo(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &pages{url: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-addr", freeAddr, "-trace"}, out, io.Discard) }()
	select {
	case url := <-out.url:
		stream, err := http.Get(url + "/api/orders/events")
		require.NoError(t, err)
		defer stream.Body.Close()
		interrupt()
		_, err = io.Copy(io.Discard, stream.Body)
		assert.NoError(t, err, "the event stream is ended in good order")
		assert.NoError(t, <-ended)
	case err := <-ended:
		require.NoError(t, err)
	}
	for _, said := range []string{`"Name":"GET /api/orders/{path...}"`, `"Name":"GET"`, "Draining …\n", "Done.\n"} {
		assert.Contains(t, out.text.String(), said)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTakenDefaultAddressGivesWayToAFreePort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", freeAddr)
	require.NoError(t, err)
	defer taken.Close()
	_, err = listen(taken.Addr().String(), false)
	require.Error(t, err, "an address that was asked for is no other")
	free, err := listen(taken.Addr().String(), true)
	require.NoError(t, err)
	assert.NotEqual(t, taken.Addr(), free.Addr())
	assert.NoError(t, free.Close())
}
