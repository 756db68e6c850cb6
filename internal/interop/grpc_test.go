package interop_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // a compressor that calls may ask for
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	rpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// rpcName is the service that the tests call, beside grpc's own health service.
const rpcName = "interop.Peer"

// maxMessage is what both ends take.
const maxMessage = 16 * mebibyte

// The methods and their shapes.
var (
	serverStream  = &grpc.StreamDesc{ServerStreams: true}
	clientStream  = &grpc.StreamDesc{ClientStreams: true}
	bidirectional = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
)

// rpcPeer is a service on grpc-go's server.
type rpcPeer struct {
	entered chan string  // a call that is going to hang
	left    chan error   // why one has ended
	cut     func() error // ends the connections to the clients
}

func (p *rpcPeer) description() *grpc.ServiceDesc {
	unary := func(f func(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error)) grpc.MethodHandler {
		return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return f(ctx, in)
		}
	}
	stream := func(name string, shape *grpc.StreamDesc, f func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{
			StreamName: name, ServerStreams: shape.ServerStreams, ClientStreams: shape.ClientStreams,
			Handler: func(_ any, s grpc.ServerStream) error { return f(s) },
		}
	}
	return &grpc.ServiceDesc{
		ServiceName: rpcName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Echo", Handler: unary(p.echo)},
			{MethodName: "Refuse", Handler: unary(func(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) { return nil, refusal() })},
			{MethodName: "Hang", Handler: unary(func(ctx context.Context, _ *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
				return nil, p.hang(ctx)
			})},
		},
		Streams: []grpc.StreamDesc{
			stream("Sum", clientStream, sum),
			stream("Count", serverStream, count),
			stream("Chat", bidirectional, chat),
			stream("Wait", bidirectional, func(s grpc.ServerStream) error {
				if err := s.SendMsg(wrapperspb.Int64(1)); err != nil {
					return err
				}
				return p.hang(s.Context())
			}),
			stream("Cut", bidirectional, func(s grpc.ServerStream) error {
				if err := s.SendMsg(wrapperspb.Int64(1)); err != nil {
					return err
				}
				if err := s.RecvMsg(new(wrapperspb.Int64Value)); err != nil { // the client has the message
					return err
				}
				return p.cut()
			}),
			stream("CutEarly", bidirectional, func(s grpc.ServerStream) error {
				if err := s.RecvMsg(new(wrapperspb.Int64Value)); err != nil {
					return err
				}
				return p.cut()
			}),
		},
	}
}

// echo returns the message, and the metadata that begin with "x-" in the header
// and in the trailer.
func (p *rpcPeer) echo(ctx context.Context, in *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	in.Value = append([]byte(nil), in.Value...)
	received, _ := metadata.FromIncomingContext(ctx)
	header, trailer := metadata.MD{}, metadata.MD{}
	for name, values := range received {
		if strings.HasPrefix(name, "x-") && !strings.HasPrefix(name, "x-forwarded") {
			header.Append(name, values...)
			trailer.Append("t"+name, values...)
		}
	}
	header.Set("authority", received.Get(":authority")...)
	if err := grpc.SetHeader(ctx, header); err != nil {
		return nil, err
	}
	return in, grpc.SetTrailer(ctx, trailer)
}

// refusal is an error with everything that an error may have.
func refusal() error {
	st, err := rpcstatus.New(codes.ResourceExhausted, "zu viel: 100 % — 世界").WithDetails(
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500)}, wrapperspb.String("detail"))
	if err != nil {
		return err
	}
	return st.Err()
}

// hang waits for the call's end.
func (p *rpcPeer) hang(ctx context.Context) error {
	_, ok := ctx.Deadline()
	p.entered <- fmt.Sprintf("deadline=%t", ok)
	<-ctx.Done()
	p.left <- ctx.Err()
	return rpcstatus.FromContextError(ctx.Err()).Err()
}

// sum adds up what the client sends.
func sum(s grpc.ServerStream) error {
	total := int64(0)
	for {
		in := new(wrapperspb.Int64Value)
		err := s.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return s.SendMsg(wrapperspb.Int64(total))
		}
		if err != nil {
			return err
		}
		total += in.Value
	}
}

// count counts up to what the client says; a negative number ends in a refusal.
func count(s grpc.ServerStream) error {
	in := new(wrapperspb.Int64Value)
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	for n := range max(in.Value, -in.Value) {
		if err := s.SendMsg(wrapperspb.Int64(n + 1)); err != nil {
			return err
		}
	}
	if in.Value < 0 {
		return refusal()
	}
	return nil
}

// chat answers each message before it reads the next.
func chat(s grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		err := s.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			s.SetTrailer(metadata.Pairs("x-end", "clean"))
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.SendMsg(wrapperspb.String("re: " + in.Value)); err != nil {
			return err
		}
	}
}

// rpc is grpc-go's client and server with a gateway between them.
type rpc struct {
	*grpc.ClientConn
	peer  *rpcPeer
	up    *gateway.Upstream
	front *server
}

// overGRPC runs a test over plain and over encrypted HTTP/2.
func overGRPC(t *testing.T, test func(t *testing.T, r *rpc), opts ...gateway.UpstreamOption) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%t", secure), func(t *testing.T) {
			t.Parallel()
			test(t, newRPC(t, secure, nil, opts...))
		})
	}
}

func newRPC(t *testing.T, secure bool, server []grpc.ServerOption, opts ...gateway.UpstreamOption) *rpc {
	r := &rpc{peer: &rpcPeer{entered: make(chan string, 256), left: make(chan error, 256)}}
	target, pool := r.peer.serve(t, secure, server)
	opts = append([]gateway.UpstreamOption{gateway.WithHTTP2()}, opts...)
	if secure {
		opts = append(opts, gateway.WithTLSConfig(pool))
	}
	var err error
	r.up, err = gateway.NewUpstream("peer", target, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shutdown(r.up)) })
	r.front = serveRPC(t, r.up, secure)
	r.ClientConn = r.dial(t)
	return r
}

// serve starts the peer on grpc-go's own HTTP/2 server.
func (p *rpcPeer) serve(t *testing.T, secure bool, opts []grpc.ServerOption) (target string, trust *tls.Config) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	conns := &accepted{Listener: ln}
	p.cut = conns.cut
	target = "http://" + ln.Addr().String()
	opts = append([]grpc.ServerOption{grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage)}, opts...)
	if secure {
		cert, pool := testnet.Certificate(t)
		target, trust = "https://"+ln.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	}
	s := grpc.NewServer(opts...)
	s.RegisterService(p.description(), p)
	healthpb.RegisterHealthServer(s, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(conns) }()
	t.Cleanup(func() {
		s.Stop()
		assert.NoError(t, <-served)
	})
	return target, trust
}

// accepted is a listener that can end what it has accepted.
type accepted struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (a *accepted) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.conns = append(a.conns, c)
	}
	return c, err
}

func (a *accepted) cut() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.conns = nil
	return nil
}

// serveRPC starts a gateway's server: HTTP/2 over TLS, or with prior knowledge.
func serveRPC(t *testing.T, h http.Handler, secure bool) *server {
	if secure {
		return serveHTTP2(t, h)
	}
	return start(t, h, func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	})
}

// dial makes a client of the gateway's server.
func (r *rpc) dial(t *testing.T) *grpc.ClientConn {
	creds := insecure.NewCredentials()
	if r.front.TLS != nil {
		creds = credentials.NewTLS(r.front.Client().Transport.(*http.Transport).TLSClientConfig.Clone())
	}
	conn, err := grpc.NewClient("passthrough:///"+r.front.Listener.Addr().String(), grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, conn.Close()) })
	return conn
}

// call makes a unary call of the peer's.
func (r *rpc) call(ctx context.Context, method string, message []byte, opts ...grpc.CallOption) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	err := r.Invoke(ctx, "/"+rpcName+"/"+method, wrapperspb.Bytes(message), out, opts...)
	return out.Value, err
}

// open opens a stream; it ends with the test at the latest.
func (r *rpc) open(t testing.TB, method string, shape *grpc.StreamDesc) (grpc.ClientStream, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := r.NewStream(ctx, shape, "/"+rpcName+"/"+method)
	require.NoError(t, err)
	return s, cancel
}

// idle waits until the gateway has nothing to do.
func (r *rpc) idle(t testing.TB) {
	t.Helper()
	testnet.Settle(t, "the calls to end", func() bool { return r.up.Stats().InFlight == 0 })
}

func within10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// refused tells whether an error is the peer's refusal, whole.
func refused(t *testing.T, err error) {
	t.Helper()
	got, want := rpcstatus.Convert(err), rpcstatus.Convert(refusal())
	assert.Equal(t, want.Code(), got.Code(), "%v", err)
	assert.Equal(t, want.Message(), got.Message())
	require.Len(t, got.Details(), 2)
	assert.Equal(t, fmt.Sprint(want.Details()), fmt.Sprint(got.Details()))
}

func TestGRPCUnary(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		ctx := within10(t)
		for _, size := range []int{0, 1, 16 << 10, 70_000, 5 * mebibyte} {
			sent := noise(size)
			back, err := r.call(ctx, "Echo", sent)
			require.NoError(t, err, "%d bytes", size)
			assert.True(t, bytes.Equal(sent, back), "%d bytes, %d came back", size, len(back))
		}
		text := bytes.Repeat([]byte("abc "), mebibyte/4)
		back, err := r.call(ctx, "Echo", text, grpc.UseCompressor("gzip"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(text, back))

		healthy, err := healthpb.NewHealthClient(r).Check(ctx, new(healthpb.HealthCheckRequest))
		require.NoError(t, err)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, healthy.GetStatus())
		r.idle(t)
		assert.Empty(t, r.up.Stats().Errors)
	})
}

func TestGRPCMetadata(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		binary := string([]byte{0, 1, 254, 255})
		ctx := metadata.AppendToOutgoingContext(within10(t), "x-one", "1", "x-many", "a", "x-many", "b, c", "x-raw-bin", binary, "x-blank", "")
		var header, trailer metadata.MD
		_, err := r.call(ctx, "Echo", nil, grpc.Header(&header), grpc.Trailer(&trailer))
		require.NoError(t, err)
		for name, want := range map[string][]string{"x-one": {"1"}, "x-many": {"a", "b, c"}, "x-raw-bin": {binary}, "x-blank": {""}} {
			assert.Equal(t, want, header.Get(name), name)
			assert.Equal(t, want, trailer.Get("t"+name), name)
		}
		assert.Equal(t, []string{"application/grpc"}, header.Get("content-type"))
		assert.NotContains(t, header, "trailer")
	})
}

// An error without a message before it is a header and nothing else; one behind
// messages is in the trailer.
func TestGRPCErrors(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		ctx := within10(t)
		_, err := r.call(ctx, "Refuse", nil)
		refused(t, err)
		_, err = r.call(ctx, "Nowhere", nil)
		assert.Equal(t, codes.Unimplemented, rpcstatus.Code(err), "%v", err)

		s, _ := r.open(t, "Count", serverStream)
		require.NoError(t, s.SendMsg(wrapperspb.Int64(-3)))
		require.NoError(t, s.CloseSend())
		for n := range 3 {
			out := new(wrapperspb.Int64Value)
			require.NoError(t, s.RecvMsg(out))
			assert.EqualValues(t, n+1, out.Value)
		}
		refused(t, s.RecvMsg(new(wrapperspb.Int64Value)))
		r.idle(t)
		assert.Empty(t, r.up.Stats().Errors, "they are the peer's answers, not failures of the gateway")
	})
}

func TestGRPCClientStream(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		for _, n := range []int64{0, 1, 5000} {
			s, _ := r.open(t, "Sum", clientStream)
			for i := range n {
				require.NoError(t, s.SendMsg(wrapperspb.Int64(i)))
			}
			require.NoError(t, s.CloseSend())
			out := new(wrapperspb.Int64Value)
			require.NoError(t, s.RecvMsg(out))
			assert.Equal(t, n*(n-1)/2, out.Value)
		}
	})
}

func TestGRPCServerStream(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		for _, n := range []int64{0, 1, 5000} {
			s, _ := r.open(t, "Count", serverStream)
			require.NoError(t, s.SendMsg(wrapperspb.Int64(n)))
			require.NoError(t, s.CloseSend())
			for i := range n {
				out := new(wrapperspb.Int64Value)
				require.NoError(t, s.RecvMsg(out))
				require.Equal(t, i+1, out.Value)
			}
			require.ErrorIs(t, s.RecvMsg(new(wrapperspb.Int64Value)), io.EOF)
		}
	})
}

// Message n is answered before n+1 is sent.
func TestGRPCBidirectional(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		s, _ := r.open(t, "Chat", bidirectional)
		for n := range 500 {
			text := fmt.Sprint("message ", n)
			require.NoError(t, s.SendMsg(wrapperspb.String(text)))
			out := new(wrapperspb.StringValue)
			require.NoError(t, s.RecvMsg(out), text)
			require.Equal(t, "re: "+text, out.Value)
		}
		require.NoError(t, s.CloseSend())
		require.ErrorIs(t, s.RecvMsg(new(wrapperspb.StringValue)), io.EOF)
		assert.Equal(t, []string{"clean"}, s.Trailer().Get("x-end"))
	})
}

// A hundred streams at a time on one connection of the client's, each in step.
func TestGRPCStreamsInParallel(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		const streams, messages = 40, 10
		var all errgroup.Group
		for i := range streams {
			s, _ := r.open(t, "Chat", bidirectional)
			all.Go(func() error {
				for j := range messages {
					text := strings.Repeat(fmt.Sprintf("%d of %d ", j, i), 1+i*j)
					if err := s.SendMsg(wrapperspb.String(text)); err != nil {
						return fmt.Errorf("stream %d: %w", i, err)
					}
					out := new(wrapperspb.StringValue)
					if err := s.RecvMsg(out); err != nil {
						return fmt.Errorf("stream %d: %w", i, err)
					}
					if out.Value != "re: "+text {
						return fmt.Errorf("stream %d got %.40q", i, out.Value)
					}
				}
				if err := s.CloseSend(); err != nil {
					return err
				}
				if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
					return fmt.Errorf("stream %d: %w", i, err)
				}
				return nil
			})
		}
		require.NoError(t, all.Wait())
		r.idle(t)
		assert.EqualValues(t, streams, r.up.Stats().Requests)
		assert.Empty(t, r.up.Stats().Errors)
	})
}

// A gRPC service's name is a path segment as any other: a gateway can route by
// it.
func TestGRPCIsRoutedByService(t *testing.T) {
	t.Parallel()
	p := &rpcPeer{}
	target, _ := p.serve(t, false, nil)
	gw := newGateway(t, gateway.WithHTTP2(),
		gateway.WithService(rpcName, target+"/"+rpcName),
		gateway.WithService("grpc.health.v1.Health", target+"/grpc.health.v1.Health"))
	r := &rpc{front: serveRPC(t, gw, false)}
	r.ClientConn = r.dial(t)
	ctx := within10(t)
	back, err := r.call(ctx, "Echo", []byte("x"))
	require.NoError(t, err)
	assert.Equal(t, "x", string(back))
	_, err = healthpb.NewHealthClient(r).Check(ctx, new(healthpb.HealthCheckRequest))
	require.NoError(t, err)
	err = r.Invoke(ctx, "/interop.Nobody/Echo", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue))
	assert.Equal(t, codes.Unimplemented, rpcstatus.Code(err), "%v", err) // as clients read a 404
}

// Or it is mounted alone. A stream on which no message moves is cut off, pings or
// not; drained, one goes on, and Shutdown waits for it and cuts it.
func TestGRPCIsMountedAlone(t *testing.T) {
	t.Parallel()
	p := &rpcPeer{}
	target, _ := p.serve(t, false, nil)
	gw := newGateway(t, gateway.WithHTTP2(), gateway.WithService("peer", target),
		gateway.WithService("strict", target, gateway.WithBodyIdleTimeout(50*time.Millisecond)))
	mux := http.NewServeMux()
	mux.Handle("/"+rpcName+"/", gw.Upstream("peer"))
	mux.Handle("/grpc.health.v1.Health/", gw.Upstream("strict"))
	r := &rpc{front: serveRPC(t, mux, false)}
	r.ClientConn = r.dial(t)

	watch, err := healthpb.NewHealthClient(r).Watch(within10(t), new(healthpb.HealthCheckRequest))
	require.NoError(t, err)
	healthy, err := watch.Recv()
	require.NoError(t, err)
	assert.Equal(t, healthpb.HealthCheckResponse_SERVING, healthy.GetStatus())
	_, err = watch.Recv()
	assert.Equal(t, codes.Internal, rpcstatus.Code(err), "%v", err)
	testnet.Settle(t, "what stood still is told", func() bool {
		return gw.Stats().Services["strict"].Errors[gateway.ReasonTimeout] == 1
	})

	chat, _ := r.open(t, "Chat", bidirectional)
	say := func() error {
		if err := chat.SendMsg(wrapperspb.String("x")); err != nil {
			return err
		}
		return chat.RecvMsg(new(wrapperspb.StringValue))
	}
	require.NoError(t, say())
	gw.Drain()
	require.NoError(t, say())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, gw.Shutdown(ctx), context.DeadlineExceeded)
	err = chat.RecvMsg(new(wrapperspb.StringValue))
	assert.Equal(t, codes.Internal, rpcstatus.Code(err), "%v", err)
}
