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

// A round tripper that minds no context is not waited for much longer than the
// times allow. What it answers yet is closed.
func TestRoundTripperThatMindsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, closed := make(chan struct{}), 0
		rt := roundTripper(func(*http.Request) (*http.Response, error) {
			<-release
			return &http.Response{StatusCode: 200, Body: body{http.NoBody, &closed}}, nil
		})
		x := caller(t, "GET")
		x.Head = time.Now().Add(time.Second)
		begin := time.Now()
		require.Equal(t, HeadTimeout, x.Do(rt))
		require.Equal(t, time.Second+patience, time.Since(begin))
		x.Close()
		close(release)
		synctest.Wait()
		require.Equal(t, 1, closed)
	})
}

// One that takes a moment to end may say how it went.
func TestRoundTripperThatEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			time.Sleep(patience / 2)
			panic(http.ErrAbortHandler)
		})
		x := caller(t, "GET")
		x.Head = time.Now().Add(time.Second)
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { _ = x.Do(rt) })
		x.Close()
	})
}

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

func TestPanicKeepsItsStack(t *testing.T) {
	defer func() {
		p, ok := recover().(*Panic)
		require.True(t, ok)
		require.Equal(t, "fault", p.Value)
		require.Contains(t, string(p.Stack), "TestPanicKeepsItsStack")
	}()
	x := caller(t, "GET")
	defer x.Close()
	_ = x.Do(roundTripper(func(*http.Request) (*http.Response, error) { panic("fault") }))
}
