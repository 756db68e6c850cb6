package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// connectPeer is connect-go's server: one handler for Connect, gRPC and
// gRPC-Web.
func connectPeer() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/"+rpcName+"/Echo", connect.NewUnaryHandler("/"+rpcName+"/Echo",
		func(_ context.Context, in *connect.Request[wrapperspb.BytesValue]) (*connect.Response[wrapperspb.BytesValue], error) {
			out := connect.NewResponse(in.Msg)
			out.Header().Set("X-Method", in.HTTPMethod())
			out.Header()["X-Sent"] = in.Header()["X-Sent"]
			out.Trailer()["X-Trailed"] = in.Header()["X-Sent"]
			return out, nil
		}, connect.WithIdempotency(connect.IdempotencyNoSideEffects)))
	mux.Handle("/"+rpcName+"/Refuse", connect.NewUnaryHandler("/"+rpcName+"/Refuse",
		func(context.Context, *connect.Request[wrapperspb.BytesValue]) (*connect.Response[wrapperspb.BytesValue], error) {
			return nil, connectRefusal()
		}))
	mux.Handle("/"+rpcName+"/Count", connect.NewServerStreamHandler("/"+rpcName+"/Count",
		func(_ context.Context, in *connect.Request[wrapperspb.Int64Value], out *connect.ServerStream[wrapperspb.Int64Value]) error {
			out.ResponseTrailer().Set("X-End", "here")
			for n := range max(in.Msg.Value, -in.Msg.Value) {
				if err := out.Send(wrapperspb.Int64(n + 1)); err != nil {
					return err
				}
			}
			if in.Msg.Value < 0 {
				return connectRefusal()
			}
			return nil
		}))
	mux.Handle("/"+rpcName+"/Sum", connect.NewClientStreamHandler("/"+rpcName+"/Sum",
		func(_ context.Context, in *connect.ClientStream[wrapperspb.Int64Value]) (*connect.Response[wrapperspb.Int64Value], error) {
			total := int64(0)
			for in.Receive() {
				total += in.Msg().Value
			}
			return connect.NewResponse(wrapperspb.Int64(total)), in.Err()
		}))
	mux.Handle("/"+rpcName+"/Chat", connect.NewBidiStreamHandler("/"+rpcName+"/Chat",
		func(_ context.Context, s *connect.BidiStream[wrapperspb.StringValue, wrapperspb.StringValue]) error {
			for {
				in, err := s.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := s.Send(wrapperspb.String("re: " + in.Value)); err != nil {
					return err
				}
			}
		}))
	return mux
}

func connectRefusal() error {
	err := connect.NewError(connect.CodeResourceExhausted, errors.New("zu viel: 100 % — 世界"))
	detail, failed := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(1500)})
	if failed != nil {
		return failed
	}
	err.AddDetail(detail)
	return err
}

// connectRefused tells whether an error is the peer's refusal, whole.
func connectRefused(t *testing.T, err error) {
	t.Helper()
	var refusal *connect.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, connect.CodeResourceExhausted, refusal.Code())
	assert.Equal(t, "zu viel: 100 % — 世界", refusal.Message())
	assert.Len(t, refusal.Details(), 1)
}

// connectCaller makes clients of one protocol through one gateway.
type connectCaller struct {
	client *http.Client
	url    string
	opts   []connect.ClientOption
}

func (c *connectCaller) bytes(method string, more ...connect.ClientOption) *connect.Client[wrapperspb.BytesValue, wrapperspb.BytesValue] {
	return connect.NewClient[wrapperspb.BytesValue, wrapperspb.BytesValue](c.client, c.url+"/"+rpcName+"/"+method, append(more, c.opts...)...)
}

func (c *connectCaller) ints(method string) *connect.Client[wrapperspb.Int64Value, wrapperspb.Int64Value] {
	return connect.NewClient[wrapperspb.Int64Value, wrapperspb.Int64Value](c.client, c.url+"/"+rpcName+"/"+method, c.opts...)
}

// overConnect runs a test for each protocol and version of HTTP.
func overConnect(t *testing.T, test func(t *testing.T, c *connectCaller, http2 bool)) {
	for _, protocol := range []struct {
		name  string
		http2 bool
		opts  []connect.ClientOption
	}{
		{"Connect", false, nil},
		{"Connect JSON", false, []connect.ClientOption{connect.WithProtoJSON()}},
		{"Connect gzip", false, []connect.ClientOption{connect.WithSendGzip()}},
		{"gRPC-Web", false, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"Connect over HTTP2", true, nil},
		{"gRPC-Web over HTTP2", true, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"gRPC over HTTP2", true, []connect.ClientOption{connect.WithGRPC()}},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			var peer, front *server
			var opts []gateway.UpstreamOption
			if protocol.http2 {
				peer = serveRPC(t, connectPeer(), false)
				opts = append(opts, gateway.WithHTTP2())
			} else {
				peer = serve(t, connectPeer())
			}
			up, err := gateway.NewUpstream("peer", peer.URL, opts...)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, shutdown(up)) })
			front = start(t, up, (*httptest.Server).Start)
			client := front.Client()
			if protocol.http2 {
				front = serveRPC(t, up, true)
				client = h2Client(t, front)
			}
			test(t, &connectCaller{client, front.URL, protocol.opts}, protocol.http2)
			testnet.Settle(t, "the calls to end", func() bool { return up.Stats().InFlight == 0 })
			assert.Empty(t, up.Stats().Errors)
		})
	}
}

func TestConnectUnary(t *testing.T) {
	t.Parallel()
	overConnect(t, func(t *testing.T, c *connectCaller, _ bool) {
		ctx := within10(t)
		for _, size := range []int{0, 1, 70_000, 2 * mebibyte} {
			in := connect.NewRequest(wrapperspb.Bytes(noise(size)))
			in.Header().Add("X-Sent", "one")
			in.Header().Add("X-Sent", "two")
			out, err := c.bytes("Echo").CallUnary(ctx, in)
			require.NoError(t, err, "%d bytes", size)
			assert.Len(t, out.Msg.Value, size)
			assert.Equal(t, []string{"one", "two"}, out.Header().Values("X-Sent"))
			assert.Equal(t, []string{"one", "two"}, out.Trailer().Values("X-Trailed"))
		}
		_, err := c.bytes("Refuse").CallUnary(ctx, connect.NewRequest(wrapperspb.Bytes(nil)))
		connectRefused(t, err)
		_, err = c.bytes("Nowhere").CallUnary(ctx, connect.NewRequest(wrapperspb.Bytes(nil)))
		assert.Equal(t, connect.CodeUnimplemented, connect.CodeOf(err), "%v", err)
	})
}

// Connect asks by GET where nothing is changed, with the message in the query.
func TestConnectGet(t *testing.T) {
	t.Parallel()
	overConnect(t, func(t *testing.T, c *connectCaller, _ bool) {
		client := c.bytes("Echo", connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
		out, err := client.CallUnary(within10(t), connect.NewRequest(wrapperspb.Bytes([]byte{0, '+', '/', '%', '&', 255})))
		require.NoError(t, err)
		assert.Equal(t, []byte{0, '+', '/', '%', '&', 255}, out.Msg.Value)
		want := http.MethodPost
		if out.Header().Get("Content-Type") == "application/proto" || out.Header().Get("Content-Type") == "application/json" {
			want = http.MethodGet // of the three protocols, Connect's
		}
		assert.Equal(t, want, out.Header().Get("X-Method"))
	})
}

func TestConnectStreams(t *testing.T) {
	t.Parallel()
	overConnect(t, func(t *testing.T, c *connectCaller, http2 bool) {
		ctx := within10(t)
		out, err := c.ints("Count").CallServerStream(ctx, connect.NewRequest(wrapperspb.Int64(1000)))
		require.NoError(t, err)
		n := int64(0)
		for ; out.Receive(); n++ {
			require.Equal(t, n+1, out.Msg().Value)
		}
		require.NoError(t, out.Err())
		assert.EqualValues(t, 1000, n)
		assert.Equal(t, "here", out.ResponseTrailer().Get("X-End"))
		require.NoError(t, out.Close())

		out, err = c.ints("Count").CallServerStream(ctx, connect.NewRequest(wrapperspb.Int64(-2)))
		require.NoError(t, err)
		for n = 0; out.Receive(); n++ {
		}
		assert.EqualValues(t, 2, n)
		connectRefused(t, out.Err())
		require.NoError(t, out.Close())

		in := c.ints("Sum").CallClientStream(ctx)
		for i := range int64(1000) {
			require.NoError(t, in.Send(wrapperspb.Int64(i)))
		}
		sum, err := in.CloseAndReceive()
		require.NoError(t, err)
		assert.EqualValues(t, 499_500, sum.Msg.Value)
		if http2 {
			connectChat(ctx, t, c)
		}
	})
}

func connectChat(ctx context.Context, t *testing.T, c *connectCaller) {
	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](c.client, c.url+"/"+rpcName+"/Chat", c.opts...)
	s := client.CallBidiStream(ctx)
	for n := range 200 {
		require.NoError(t, s.Send(wrapperspb.String(fmt.Sprint(n))))
		back, err := s.Receive()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("re: ", n), back.Value)
	}
	require.NoError(t, s.CloseRequest())
	_, err := s.Receive()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, s.CloseResponse())
}
