package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// leaky keeps all that it makes.
type leaky struct{ kept [][]byte }

func (l *leaky) leak() { l.kept = append(l.kept, make([]byte, 8<<20)) }

// The line that leaks is named first. It does not run beside other tests, whose
// memory would come and go.
func TestALeakIsReportedWithItsLine(t *testing.T) {
	const interval = 100 * time.Millisecond
	logs, reports := testnet.NewLogRecorder(), make(chan gateway.MemoryReport, 100)
	gw, err := gateway.New(gateway.WithLogger(logs.Logger()), gateway.WithService("a", target),
		gateway.WithMemoryWatch(interval, func(r gateway.MemoryReport) {
			reports <- r
			panic("no")
		}))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, gw.Shutdown(context.Background())) })
	gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/nobody", http.NoBody)) // the first request

	var l leaky
	var leaked time.Time
	testnet.Settle(t, "the leak is reported", func() bool {
		if len(l.kept) < 50 && time.Since(leaked) > interval/2 { // so that each sample has more
			leaked = time.Now()
			l.leak()
			runtime.GC() // the profile is as old as the one before
		}
		return len(reports) > 0
	})
	runtime.KeepAlive(l.kept)
	r := <-reports
	assert.Equal(t, interval, r.Interval)
	assert.Positive(t, r.Rise)
	require.GreaterOrEqual(t, len(r.Samples), 4)
	require.LessOrEqual(t, len(r.Samples), 10)
	first, last := r.Samples[0], r.Samples[len(r.Samples)-1]
	assert.Greater(t, last.Live, first.Live+10<<20)
	assert.Positive(t, last.Goroutines)
	if runtime.GOOS == "linux" {
		assert.Positive(t, last.Descriptors)
	}
	require.NotEmpty(t, r.Sites)
	assert.LessOrEqual(t, len(r.Sites), 5)
	assert.True(t, strings.HasSuffix(r.Sites[0].Function, "(*leaky).leak"), "%+v", r.Sites)
	assert.True(t, strings.HasSuffix(r.Sites[0].File, "/memory_watch_test.go"))
	assert.Equal(t, 22, r.Sites[0].Line)
	assert.Greater(t, r.Sites[0].Bytes, int64(8<<20))

	lines := logs.Find(t, "gateway: memory growth")
	require.NotEmpty(t, lines)
	assert.Contains(t, lines[0]["gateway.memory.sites"].([]any)[0], "memory_watch_test.go:22")
	testnet.Settle(t, "the hook's panic is logged", func() bool { return len(logs.Find(t, "gateway: panic")) > 0 })
	assert.Equal(t, "WithMemoryWatch", logs.Find(t, "gateway: panic")[0]["gateway.where"])
}
