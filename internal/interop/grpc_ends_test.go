package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	rpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A client that calls a call off ends it at the server too, before its answer
// and inside of it.
func TestGRPCCancellation(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		ctx, cancel := context.WithCancel(within10(t))
		ended := make(chan error, 1)
		go func() {
			_, err := r.call(ctx, "Hang", nil)
			ended <- err
		}()
		assert.Equal(t, "deadline=true", within(t, "the call to arrive", r.peer.entered))
		cancel()
		require.ErrorIs(t, within(t, "the server to be told", r.peer.left), context.Canceled)
		assert.Equal(t, codes.Canceled, rpcstatus.Code(within(t, "the client", ended)))

		s, cancel := r.open(t, "Wait", bidirectional)
		require.NoError(t, s.RecvMsg(new(wrapperspb.Int64Value)))
		within(t, "the stream to arrive", r.peer.entered)
		cancel()
		require.ErrorIs(t, within(t, "the server to be told", r.peer.left), context.Canceled)
		assert.Equal(t, codes.Canceled, rpcstatus.Code(s.RecvMsg(new(wrapperspb.Int64Value))))

		_, err := r.call(within10(t), "Echo", nil)
		require.NoError(t, err, "the connections are still of use")
		r.idle(t)
	})
}

// A deadline travels with the call, and ends it at both ends.
func TestGRPCDeadline(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := r.call(ctx, "Hang", nil)
		// The server's own clock may be ahead: then the gateway says that it was reset.
		assert.Contains(t, []codes.Code{codes.DeadlineExceeded, codes.Unavailable}, rpcstatus.Code(err), "%v", err)
		assert.Equal(t, "deadline=true", within(t, "the call to arrive", r.peer.entered))
		assert.Error(t, within(t, "the server to be told", r.peer.left))
		r.idle(t)
	})
}

// The gateway's own refusals are gRPC's, with its reason.
func TestGRPCTimeoutOfTheGateway(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		_, err := r.call(within10(t), "Hang", nil)
		assert.Equal(t, codes.DeadlineExceeded, rpcstatus.Code(err), "%v", err)
		assert.Contains(t, rpcstatus.Convert(err).Message(), "timeout: ")
		require.ErrorIs(t, within(t, "the server to be told", r.peer.left), context.Canceled)
		r.idle(t)
		assert.EqualValues(t, 1, r.up.Stats().Errors[gateway.ReasonTimeout])
	}, gateway.WithTimeout(100*time.Millisecond))
}

func TestGRPCDownUpstream(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	up, err := gateway.NewUpstream("peer", "http://"+testnet.Refused(t), gateway.WithHTTP2(),
		gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shutdown(up)) })
	r := &rpc{up: up, front: serveRPC(t, up, false)}
	r.ClientConn = r.dial(t)
	_, err = r.call(within10(t), "Echo", nil)
	assert.Equal(t, codes.Unavailable, rpcstatus.Code(err), "%v", err)
	assert.Equal(t, "connect_failed: The service could not be reached.", rpcstatus.Convert(err).Message())
	assert.Positive(t, up.Stats().Errors[gateway.ReasonConnect])
	r.idle(t)
	ended := spans.Ended()
	server := ended[len(ended)-1]
	assert.Equal(t, trace.SpanKindServer, server.SpanKind())
	assert.Equal(t, otelcodes.Error, server.Status().Code, "though its status is 200")
	assert.Contains(t, server.Attributes(), attribute.String("error.type", "connect_failed"))
}

// A call that is too large is told from one that may be tried again.
func TestGRPCTooLarge(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		_, err := r.call(within10(t), "Echo", make([]byte, 100_000))
		assert.Equal(t, codes.ResourceExhausted, rpcstatus.Code(err), "%v", err)
		assert.Contains(t, rpcstatus.Convert(err).Message(), "body_too_large: ")
		r.idle(t)
	}, gateway.WithMaxBodyBytes(1000))
}

// A connection that is cut upstream is an abort for the client, never a clean
// end, though the client has not ended its part; and the next call finds a new
// one.
func TestGRPCConnectionCut(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		for range 5 {
			s, _ := r.open(t, "Cut", bidirectional)
			require.NoError(t, s.RecvMsg(new(wrapperspb.Int64Value)))
			require.NoError(t, s.SendMsg(wrapperspb.Int64(1)))
			aborted(t, s)
			_, err := r.call(within10(t), "Echo", nil)
			require.NoError(t, err)
		}
		r.idle(t)
		assert.EqualValues(t, 5, r.up.Stats().Errors[gateway.ReasonTruncated])
	})
}

// So is one that is cut before there is an answer.
func TestGRPCConnectionCutBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		s, _ := r.open(t, "CutEarly", bidirectional)
		require.NoError(t, s.SendMsg(wrapperspb.Int64(1)))
		aborted(t, s)
		r.idle(t)
		assert.EqualValues(t, 1, r.up.Stats().Errors[gateway.ReasonUpstreamFailed])
	})
}

// aborted expects that a stream breaks off, at once.
func aborted(t *testing.T, s grpc.ClientStream) {
	t.Helper()
	began := time.Now()
	err := s.RecvMsg(new(wrapperspb.Int64Value))
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
	require.Contains(t, []codes.Code{codes.Internal, codes.Unavailable}, rpcstatus.Code(err), "%v", err)
	require.Less(t, time.Since(began), patience/2)
}

// A stream that the upstream resets is reset for the client, whichever library
// that uses, and takes no other along.
func TestGRPCStreamReset(t *testing.T) {
	t.Parallel()
	message := append([]byte{0, 0, 0, 0, 3}, 0x0a, 1, 'x')
	stay := make(chan struct{})
	backend := serveRPC(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/"+rpcName+"/Early" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write(message)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/"+rpcName+"/Stay" {
			<-stay
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			return
		}
		panic(http.ErrAbortHandler)
	}), false)
	up, err := gateway.NewUpstream("peer", backend.URL, gateway.WithHTTP2())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shutdown(up)) })
	for _, secure := range []bool{false, true} {
		r := &rpc{up: up, front: serveRPC(t, up, secure)}
		r.ClientConn = r.dial(t)
		other, _ := r.open(t, "Stay", serverStream)
		require.NoError(t, other.SendMsg(wrapperspb.Bytes(nil)))
		require.NoError(t, other.CloseSend())
		out := new(wrapperspb.BytesValue)
		require.NoError(t, other.RecvMsg(out))
		assert.Equal(t, "x", string(out.Value))

		s, _ := r.open(t, "Reset", serverStream)
		require.NoError(t, s.SendMsg(wrapperspb.Bytes(nil)))
		require.NoError(t, s.CloseSend())
		for err = nil; err == nil; {
			err = s.RecvMsg(out)
		}
		assert.NotErrorIs(t, err, io.EOF)
		assert.Contains(t, []codes.Code{codes.Internal, codes.Unavailable}, rpcstatus.Code(err), "%v", err)

		client := h2Client(t, r.front)
		resp, err := client.Post(r.front.URL+"/"+rpcName+"/Reset", "application/grpc", bytes.NewReader(message))
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		require.ErrorContains(t, err, "INTERNAL_ERROR")

		early, _ := r.open(t, "Early", bidirectional) // whose upload goes on
		aborted(t, early)

		stay <- struct{}{}
		require.ErrorIs(t, other.RecvMsg(out), io.EOF)
		r.idle(t)
	}
	assert.EqualValues(t, 4, up.Stats().Errors[gateway.ReasonTruncated])
}

// h2Client speaks HTTP/2 to a server, whether that is encrypted or not.
func h2Client(t testing.TB, s *server) *http.Client {
	transport := s.Client().Transport.(*http.Transport).Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(s.TLS != nil)
	transport.Protocols.SetUnencryptedHTTP2(s.TLS == nil)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Servers retire their connections by GOAWAY all the time: no call may notice.
func TestGRPCConnectionsAreRetired(t *testing.T) {
	t.Parallel()
	r := newRPC(t, false, []grpc.ServerOption{grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: patience,
	})})
	var all errgroup.Group
	for i := range 8 {
		all.Go(func() error {
			for began, n := time.Now(), 0; time.Since(began) < time.Second; n++ {
				if _, err := r.call(t.Context(), "Echo", []byte("x")); err != nil {
					return fmt.Errorf("worker %d, call %d: %w", i, n, err)
				}
			}
			return nil
		})
	}
	assert.NoError(t, all.Wait())
	r.idle(t)
	t.Logf("%d calls", r.up.Stats().Requests)
}

// Shutdown waits for calls, and cuts them at its deadline: an abort, in gRPC's
// terms too.
func TestGRPCShutdown(t *testing.T) {
	t.Parallel()
	overGRPC(t, func(t *testing.T, r *rpc) {
		s, _ := r.open(t, "Wait", bidirectional)
		require.NoError(t, s.RecvMsg(new(wrapperspb.Int64Value)))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, r.up.Shutdown(ctx), context.DeadlineExceeded)
		err := s.RecvMsg(new(wrapperspb.Int64Value))
		require.Error(t, err)
		assert.NotErrorIs(t, err, io.EOF)
		require.ErrorIs(t, within(t, "the server to be told", r.peer.left), context.Canceled)
		_, err = r.call(within10(t), "Echo", nil)
		assert.Equal(t, codes.Unavailable, rpcstatus.Code(err), "%v", err)
	})
}
