package interop_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/testnet"
)

// A tab is a page in a real browser, headless Chromium, that is driven over its
// DevTools protocol.
type tab struct {
	*testing.T
	conn    *websocket.Conn
	session string

	mu       sync.Mutex
	last     int
	answers  map[int]chan command
	troubles []string // that the console has shown
	asked    []string // URLs that were requested
}

type command struct {
	ID        int                       `json:"id,omitempty"`
	SessionID string                    `json:"sessionId,omitempty"`
	Method    string                    `json:"method,omitempty"`
	Params    any                       `json:"params,omitempty"`
	Result    json.RawMessage           `json:"result,omitempty"`
	Error     *struct{ Message string } `json:"error,omitempty"`
}

var listening = regexp.MustCompile(`DevTools listening on (ws://\S+)`)

// newTab starts a browser, with an empty page.
func newTab(t *testing.T) *tab {
	t.Helper()
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if found := listening.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	var url string
	testnet.SettleWithin(t, patience, "the browser listens", func() bool {
		select {
		case url = <-address:
			return true
		default:
			return false
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	conn, _, err := websocket.Dial(ctx, url, nil)
	require.NoError(t, err)
	conn.SetReadLimit(64 << 20)
	b := &tab{T: t, conn: conn, answers: map[int]chan command{}}
	received := make(chan struct{})
	go func() {
		defer close(received)
		b.receive(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		_ = conn.CloseNow()
		<-received
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the browser and the processes that it has started
		<-read
		_ = cmd.Wait()
	})
	var made struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Runtime", "Log", "Network", "Page"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

func (b *tab) receive(ctx context.Context) {
	for {
		_, data, err := b.conn.Read(ctx)
		if err != nil {
			return
		}
		var m struct {
			command
			Params json.RawMessage `json:"params"`
		}
		if json.Unmarshal(data, &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "":
			if c := b.answers[m.ID]; c != nil {
				c <- m.command
				delete(b.answers, m.ID)
			}
		case "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded":
			b.troubles = append(b.troubles, m.Method+": "+string(m.Params))
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			_ = json.Unmarshal(m.Params, &p)
			b.asked = append(b.asked, p.Request.URL)
		}
		b.mu.Unlock()
	}
}

// call sends a command, and waits for its result.
func (b *tab) call(method string, params, result any) {
	b.Helper()
	b.mu.Lock()
	b.last++
	id, answer := b.last, make(chan command, 1)
	b.answers[id] = answer
	b.mu.Unlock()
	data, err := json.Marshal(command{ID: id, SessionID: b.session, Method: method, Params: params})
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(b, b.conn.Write(ctx, websocket.MessageText, data))
	select {
	case got := <-answer:
		require.Nil(b, got.Error, "%s: %v", method, got.Error)
		if result != nil {
			require.NoError(b, json.Unmarshal(got.Result, result), "%s: %s", method, got.Result)
		}
	case <-ctx.Done():
		b.Fatalf("%s: no answer", method)
	}
}

// eval returns what an expression is, as text.
func (b *tab) eval(expression string) string {
	b.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &got)
	require.Nil(b, got.ExceptionDetails, expression)
	return fmt.Sprint(got.Result.Value)
}

// until waits until an expression is true.
func (b *tab) until(what, expression string) {
	b.Helper()
	testnet.SettleWithin(b, patience, what, func() bool { return b.eval(expression) == "true" })
}

// open loads a page, in a window of some size.
func (b *tab) open(url string, width, height int, dark bool) {
	b.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// shoot takes a picture of what is to be seen.
func (b *tab) shoot(file string) {
	b.Helper()
	var got struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &got)
	png, err := base64.StdEncoding.DecodeString(got.Data)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(file, png, 0o600))
}

// quiet checks that nothing went wrong, and that nothing was asked for but what is
// below a URL.
func (b *tab) quiet(below string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Empty(b, b.troubles)
	for _, url := range b.asked {
		assert.True(b, strings.HasPrefix(url, below) || strings.HasPrefix(url, "data:") || url == "about:blank", "%s was asked for", url)
	}
}
