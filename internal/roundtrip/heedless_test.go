package roundtrip

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// stuck is a content that ends when it is closed, and by nothing else.
type stuck struct{ closed chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	<-s.closed
	return 0, errors.New("closed")
}

func (s stuck) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func TestContentThatMindsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := stuck{make(chan struct{})}
		rt := roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ContentLength: -1, Body: content}, nil
		})
		x := caller(t, "GET")
		x.Idle = time.Second
		require.NoError(t, x.Do(rt))
		begin := time.Now()
		_, err := io.ReadAll(x)
		require.Equal(t, IdleTimeout, err)
		require.Equal(t, time.Second+patience, time.Since(begin))
		x.Close()
	})
}
