// Package conformance_test has the gateway stand between the clients and the
// servers of public conformance suites. They are programs of their own, built
// from the module registry at the versions of go.mod, and know of no gateway.
package conformance_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
)

// TestMain is also the main function of what the suites start: this program,
// again, with the name of a role first.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if play, ok := roles[os.Args[1]]; ok {
			if err := play(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// roles are what the suites start, given the arguments after their names.
var roles = map[string]func(args []string) error{
	"connect-server": connectServer,
	"connect-client": connectClient,
}

// patience bounds a suite, and the build of its programs.
const patience = 5 * time.Minute

// built builds the programs of these packages and returns their folder.
func built(t *testing.T, packages ...string) string {
	dir := t.TempDir()
	run(t, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...)
	return dir
}

// run runs a program to its end, which has to be a good one, and returns what it
// wrote.
func run(t *testing.T, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // for what it has started
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", tail(out))
	return string(out)
}

// tail is the end of what a program wrote, where it says what was wrong.
func tail(out []byte) []byte { return out[max(0, len(out)-16<<10):] }

// A front is a server with nothing but a gateway, before one upstream.
type front struct {
	gw     *gateway.Upstream
	server *http.Server
	port   int
}

// newFront serves HTTP/2 in clear text (RFC 9113 §3.3) or HTTP/1.1, and speaks the
// same to the upstream.
func newFront(target string, http2 bool) (*front, error) {
	var opts []gateway.UpstreamOption
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	if http2 {
		opts = append(opts, gateway.WithHTTP2())
	}
	gw, err := gateway.NewUpstream("suite", target, opts...)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{gw, &http.Server{Handler: gw, Protocols: protocols, ReadHeaderTimeout: 5 * time.Second}, l.Addr().(*net.TCPAddr).Port}
	go func() {
		if err := f.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return f, nil
}

// close ends both, within the time of a request that nobody waits for any more.
func (f *front) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(f.server.Shutdown(ctx), f.gw.Shutdown(ctx))
}

// grpcCases are those of gRPC's interoperability tests that need no cloud's
// credentials.
var grpcCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak",
	"channel_soak", "orca_per_rpc", "orca_oob",
}

// loadReports has the client take note of what the server says of its load, which
// the cases named orca ask for. The others do not mind.
const loadReports = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

func TestGRPC(t *testing.T) {
	dir := built(t, "google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	server := exec.CommandContext(ctx, filepath.Join(dir, "server"), "-port=0")
	server.Env = append(os.Environ(), "GRPC_GO_LOG_SEVERITY_LEVEL=info")
	log, err := server.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	lines := bufio.NewScanner(log)
	var port string
	for port == "" && lines.Scan() {
		if _, addr, ok := strings.Cut(lines.Text(), "listening on "); ok {
			_, port, err = net.SplitHostPort(addr)
			require.NoError(t, err)
		}
	}
	var read sync.WaitGroup
	read.Go(func() { _, _ = io.Copy(io.Discard, log) })
	t.Cleanup(func() {
		cancel()
		read.Wait()
		_ = server.Wait()
	})
	f, err := newFront("http://127.0.0.1:"+port, true)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.close()) })
	for _, name := range grpcCases {
		t.Run(name, func(t *testing.T) {
			run(t, filepath.Join(dir, "client"), "-server_host=127.0.0.1", fmt.Sprintf("-server_port=%d", f.port),
				"-test_case="+name, "-service_config_json="+loadReports, "-soak_iterations=100", "-soak_overall_timeout_seconds=60")
		})
	}
}
