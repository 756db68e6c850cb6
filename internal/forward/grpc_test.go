package forward

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIsGRPC(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc+json": true, "Application/GRPC": true,
		"application/grpc;proto=x": true, "application/grpc ; x=y": true,
		"": false, "application/grp": false, "application/grpc-web": false, "application/grpc-web+proto": false, "application/grpcx": false,
		"application/json": false, "x application/grpc": false,
	} {
		require.Equal(t, want, IsGRPC(http.Header{"Content-Type": {kind}}), kind)
	}
	require.False(t, IsGRPC(nil))
	require.False(t, IsGRPC(http.Header{"Content-Type": {"application/grpc", "application/grpc"}}))
}

// gRPC's own mapping for who does not know better (http-grpc-status-mapping.md), but for what a gateway knows better.
func TestGRPCStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		400: "13", 401: "16", 403: "7", 404: "12", 429: "14", 502: "14", 503: "14", // theirs
		405: "12", 408: "4", 413: "8", 431: "8", 500: "13", 501: "12", 504: "4", // ours
		200: "2", 417: "2", 418: "2", 508: "2", 0: "2",
	} {
		require.Equal(t, want, GRPCStatus(status), "%d", status)
	}
}
