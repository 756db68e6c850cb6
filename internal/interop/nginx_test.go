package interop_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// nginx is a real one, which ends its connections after a few requests. Over HTTP/2 it
// says so in the midst of the others that are under way.
type nginx struct {
	*exec.Cmd
	h1, h2 string // where it listens
}

const nginxConfig = `
daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log %[1]s/errors;
events { worker_connections 1024; }
http {
	access_log off; keepalive_requests 20; client_max_body_size 64k;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	server { listen %[2]s; listen %[3]s http2; root %[1]s; location /echo { return 200 "$request_method"; } }
}`

func newNginx(t *testing.T) *nginx {
	t.Helper()
	dir := t.TempDir()
	n := &nginx{h1: freeAddress(t), h2: freeAddress(t)}
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, n.h1, n.h2), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "page"), []byte(strings.Repeat("page", 1000)), 0o600))
	n.Cmd = exec.Command("nginx", "-c", config, "-e", filepath.Join(dir, "errors"))
	var log bytes.Buffer
	n.Stdout, n.Stderr = &log, &log
	require.NoError(t, n.Start())
	t.Cleanup(func() {
		assert.NoError(t, n.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, n.Wait())
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(dir, "errors"))
			t.Logf("%s%s", log.Bytes(), errors)
		}
	})
	testnet.Settle(t, "nginx listens", func() bool {
		conn, err := net.Dial("tcp", n.h2)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return n
}

// each runs f before both of nginx's sides.
func (n *nginx) each(t *testing.T, f func(t *testing.T, app *server)) {
	for _, side := range []struct {
		name, addr string
		opts       []gateway.ServiceOption
	}{
		{"HTTP/1.1", n.h1, nil},
		{"HTTP/2", n.h2, []gateway.ServiceOption{gateway.WithHTTP2()}},
	} {
		t.Run(side.name, func(t *testing.T) {
			gw := newGateway(t, gateway.WithService("nginx", "http://"+side.addr, append(side.opts, gateway.WithoutCache())...))
			app := serve(t, gw)
			app.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = nginxClients
			f(t, app)
		})
	}
}

const nginxClients = 64 // more than three connections' worth

// load has every client ask so often, and wants 200 and this much content each time.
func nginxLoad(t *testing.T, app *server, times int, method, path string, content []byte, want int) {
	var all sync.WaitGroup
	for range nginxClients {
		all.Go(func() {
			for range times {
				req, err := http.NewRequestWithContext(t.Context(), method, app.URL+path, bytes.NewReader(content))
				if !assert.NoError(t, err) {
					return
				}
				resp, err := app.Client().Do(req)
				if !assert.NoError(t, err) {
					return
				}
				var body bytes.Buffer
				_, err = body.ReadFrom(resp.Body)
				_ = resp.Body.Close()
				if !assert.NoError(t, err) || !assert.Equal(t, 200, resp.StatusCode, body.String()) || !assert.Equal(t, want, body.Len()) {
					return
				}
			}
		})
	}
	all.Wait()
}

// A connection that comes to its end takes no request along, a POST neither.
func TestNginxEndsConnections(t *testing.T) {
	newNginx(t).each(t, func(t *testing.T, app *server) {
		nginxLoad(t, app, 20, http.MethodGet, "/nginx/page", nil, 4000)
		nginxLoad(t, app, 20, http.MethodPost, "/nginx/echo", bytes.Repeat([]byte("x"), 3000), len("POST"))
	})
}

// Nor does a reload, which ends all of them.
func TestNginxReloads(t *testing.T) {
	n := newNginx(t)
	n.each(t, func(t *testing.T, app *server) {
		var load sync.WaitGroup
		for range 5 {
			load.Go(func() { nginxLoad(t, app, 10, http.MethodGet, "/nginx/page", nil, 4000) })
			require.NoError(t, n.Process.Signal(syscall.SIGHUP))
			load.Wait()
		}
	})
}

// What is too large for nginx is refused before all of it was sent.
func TestNginxRefusesContent(t *testing.T) {
	newNginx(t).each(t, func(t *testing.T, app *server) {
		for range 20 {
			got := send(t, app.Client(), http.MethodPost, app.URL+"/nginx/page", bytes.NewReader(make([]byte, 1<<20)))
			require.NoError(t, got.err)
			require.Equal(t, 413, got.StatusCode)
			require.Contains(t, got.body, "nginx")
		}
	})
}
