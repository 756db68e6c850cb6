package forward

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaving is a running tunnel between two peers in memory, whose buffers hold nothing.
type leaving struct {
	*testing.T
	tunnel         *Tunnel
	client, server *end
	done           chan result
	begin          time.Time // of GoAway
}

func leave(t *testing.T, test func(l *leaving)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &leaving{T: t, done: make(chan result, 1)}
		client, front := duplex()
		back, server := duplex()
		l.client, l.server = client, server
		l.tunnel = NewTunnel(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute, Go: func(_ string, f func()) bool { go f(); return true }})
		go func() {
			up, down, err := l.tunnel.Run()
			l.done <- result{up, down, err}
		}()
		test(l)
		l.tunnel.Close()
		closed(t, client, server)
	})
}

func (l *leaving) goAway() {
	l.begin = time.Now()
	l.tunnel.GoAway()
	l.tunnel.GoAway() // once more is the same
	assert.Zero(l, time.Since(l.begin))
}

// over checks when the tunnel ended after GoAway, and that it did so in good order.
func (l *leaving) over(after time.Duration) {
	l.Helper()
	got := <-l.done
	require.NoError(l, got.err)
	assert.Equal(l, after, time.Since(l.begin))
}

// told reads the Close that a server is sent.
func (l *leaving) toldServer() {
	l.Helper()
	b := make([]byte, 8)
	_, err := io.ReadFull(l.server, b)
	require.NoError(l, err)
	require.Equal(l, "\x88\x82", string(b[:2]))
	require.Equal(l, "\x03\xe9", string([]byte{b[6] ^ b[2], b[7] ^ b[3]}))
}

func (l *leaving) toldClient() {
	l.Helper()
	receive(l.T, l.client, goingAway)
}

// nothing checks that a peer is sent no more.
func (l *leaving) nothing(peers ...*end) {
	l.Helper()
	for _, p := range peers {
		rest, _ := io.ReadAll(p)
		assert.Empty(l, rest)
	}
}

// carry has both sides say something.
func (l *leaving) carry() {
	l.Helper()
	send(l.T, l.client, helloMasked)
	receive(l.T, l.server, helloMasked)
	send(l.T, l.server, hello)
	receive(l.T, l.client, hello)
}

func TestGoAwayTellsBothAndWaitsForTheirAnswers(t *testing.T) {
	for _, before := range []bool{true, false} {
		leave(t, func(l *leaving) {
			if before {
				l.carry()
			}
			l.goAway()
			l.toldServer()
			assert.Equal(t, goAwayLinger, time.Since(l.begin))
			send(t, l.server, hello+down(0x88, "\x03\xe9")) // what was on the way comes first
			receive(t, l.client, hello)
			l.toldClient()
			assert.Equal(t, goAwayLinger, time.Since(l.begin))
			time.Sleep(50 * time.Millisecond)
			send(t, l.client, up(0x88, "\x03\xe9"))
			l.over(goAwayLinger + 50*time.Millisecond)
			l.nothing(l.client, l.server)
		})
	}
}

// The upstream's answer to our Close is not passed on: the client gets ours.
func TestGoAwayTakesThePlaceOfTheAnswer(t *testing.T) {
	for _, answer := range []string{"\x88\x00", normal, down(0x88, "\x0f\xa0bye")} {
		for _, cut := range []int{0, 1, 2, len(answer)} {
			leave(t, func(l *leaving) {
				l.goAway()
				l.toldServer()
				send(t, l.server, hel) // a control frame may come within a message (RFC 6455 §5.4)
				receive(t, l.client, hel)
				go func() {
					_, _ = io.WriteString(l.server, answer[:cut])
					_, _ = io.WriteString(l.server, answer[cut:])
				}()
				l.toldClient()
				send(t, l.client, up(0x88, ""))
				l.over(goAwayLinger)
				l.nothing(l.client, l.server)
			})
		}
	}
}

// RFC 6455 §5.5.1: what comes after our Close is not passed on.
func TestGoAwayIsTheLastWord(t *testing.T) {
	leave(t, func(l *leaving) {
		l.goAway()
		l.toldServer()
		send(t, l.client, helloMasked+helloMasked[:3])
		send(t, l.client, helloMasked[3:])
		send(t, l.server, normal)
		l.toldClient()
		send(t, l.server, "whatever")
		send(t, l.client, helloMasked+up(0x88, ""))
		l.over(goAwayLinger)
		l.nothing(l.client, l.server)
	})
}

// A frame that is under way is passed whole, and the Close comes behind it.
func TestGoAwayAtTheEndOfAFrame(t *testing.T) {
	for _, cut := range []int{1, 2, 5, 10} {
		leave(t, func(l *leaving) {
			send(t, l.client, helloMasked[:cut])
			receive(t, l.server, helloMasked[:cut])
			send(t, l.server, hello[:cut/2+1])
			receive(t, l.client, hello[:cut/2+1])
			l.goAway()
			time.Sleep(700 * time.Millisecond)                     // both are late
			send(t, l.client, helloMasked[cut:]+helloMasked[:cut]) // and the next one is not begun
			receive(t, l.server, helloMasked[cut:])
			l.toldServer()
			send(t, l.server, hello[cut/2+1:]+hel+normal[:1])
			receive(t, l.client, hello[cut/2+1:]+hel)
			l.toldClient()
			send(t, l.server, normal[1:])
			send(t, l.client, helloMasked[cut:]+up(0x88, ""))
			l.over(700 * time.Millisecond)
			l.nothing(l.client, l.server)
		})
	}
}

// RFC 6455 §5.5.1: a Close may wait until a message is sent. It may also come within (§5.4), if that takes too long.
func TestGoAwayAtTheEndOfAMessage(t *testing.T) {
	first, last := up(0x01, "hel"), up(0x80, "lo")
	t.Run("soon", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, first)
			receive(t, l.server, first)
			l.goAway()
			time.Sleep(200 * time.Millisecond)
			send(t, l.client, up(0x89, "")+last+first) // the next one is not begun
			receive(t, l.server, up(0x89, "")+last)
			l.toldServer()
			assert.Equal(t, 200*time.Millisecond, time.Since(l.begin))
			send(t, l.server, hel)
			receive(t, l.client, hel)
			time.Sleep(400 * time.Millisecond)
			send(t, l.server, lo+hel)
			receive(t, l.client, lo)
			l.toldClient()
			assert.Equal(t, 600*time.Millisecond, time.Since(l.begin))
			l.over(goAwayGrace)
			l.nothing(l.client, l.server)
		})
	})
	t.Run("not soon", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, first)
			receive(t, l.server, first)
			send(t, l.server, hel)
			receive(t, l.client, hel)
			l.goAway()
			l.toldServer()
			assert.Equal(t, goAwayUrgent, time.Since(l.begin))
			l.over(goAwayGrace)
		})
	})
}

// What was sent before is passed on, and what is sent until the upstream is told.
func TestGoAwayLosesNothingSentBefore(t *testing.T) {
	leave(t, func(l *leaving) {
		l.carry()
		l.goAway()
		for range 9 {
			time.Sleep(goAwayLinger / 10)
			l.carry()
		}
		l.toldServer()
		for range 9 { // nor what the upstream says until it answers
			time.Sleep(10 * time.Millisecond)
			send(t, l.server, hello)
			receive(t, l.client, hello)
		}
		send(t, l.server, normal)
		l.toldClient()
		send(t, l.client, up(0x88, ""))
		l.over(goAwayLinger + 90*time.Millisecond)
	})
}

func TestGoAwayWithoutAnswers(t *testing.T) {
	t.Run("upstream", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.toldServer()
			l.toldClient()
			assert.Equal(t, goAwayHalf, time.Since(l.begin))
			send(t, l.client, up(0x88, ""))
			l.over(goAwayGrace)
			l.nothing(l.client, l.server)
		})
	})
	t.Run("client", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.toldServer()
			send(t, l.server, normal)
			l.toldClient()
			l.over(goAwayGrace)
			l.nothing(l.client, l.server)
		})
	})
	t.Run("nobody reads", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, helloMasked)
			send(t, l.server, hello)
			l.goAway()
			l.over(goAwayGrace)
		})
	})
	t.Run("the upstream does not read", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, helloMasked)
			l.goAway()
			l.toldClient()
			assert.Equal(t, goAwayHalf, time.Since(l.begin))
			l.over(goAwayGrace)
		})
	})
	t.Run("the client does not read", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.server, hello)
			l.goAway()
			l.toldServer()
			assert.Equal(t, goAwayLinger, time.Since(l.begin))
			l.over(goAwayGrace)
		})
	})
	t.Run("frames that do not end", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, helloMasked[:8])
			receive(t, l.server, helloMasked[:8])
			send(t, l.server, hello[:3])
			receive(t, l.client, hello[:3])
			l.goAway()
			l.over(goAwayGrace)
			l.nothing(l.client, l.server)
		})
	})
}

// A side that closes by itself is not spoken for.
func TestGoAwayWhileTheyClose(t *testing.T) {
	t.Run("the client has", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.client, up(0x88, "\x03\xe8"))
			receive(t, l.server, up(0x88, "\x03\xe8"))
			l.goAway()
			send(t, l.server, normal)
			receive(t, l.client, normal)
			l.over(0)
			l.nothing(l.client, l.server)
		})
	})
	t.Run("the client does at last", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			send(t, l.client, up(0x88, "\x03\xe8"))
			receive(t, l.server, up(0x88, "\x03\xe8"))
			send(t, l.server, normal)
			receive(t, l.client, normal)
			l.over(0)
		})
	})
	t.Run("the upstream has", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.server, normal)
			receive(t, l.client, normal)
			l.goAway()
			send(t, l.client, helloMasked+up(0x88, "\x03\xe8"))
			receive(t, l.server, helloMasked+up(0x88, "\x03\xe8"))
			l.over(0)
			l.nothing(l.client, l.server)
		})
	})
	t.Run("both have", func(t *testing.T) {
		leave(t, func(l *leaving) {
			send(t, l.server, normal)
			receive(t, l.client, normal)
			send(t, l.client, up(0x88, ""))
			receive(t, l.server, up(0x88, ""))
			synctest.Wait()
			l.goAway()
			l.over(0)
			l.nothing(l.client, l.server)
		})
	})
}

func TestGoAwayWhenHalfIsClosed(t *testing.T) {
	t.Run("the client's before", func(t *testing.T) {
		leave(t, func(l *leaving) {
			require.NoError(t, l.client.CloseWrite())
			l.nothing(l.server)
			l.goAway()
			l.toldClient()
			l.over(goAwayLinger) // nobody can answer
		})
	})
	t.Run("the upstream's before", func(t *testing.T) {
		leave(t, func(l *leaving) {
			require.NoError(t, l.server.CloseWrite())
			l.nothing(l.client)
			l.goAway()
			l.toldServer()
			l.over(goAwayLinger)
		})
	})
	t.Run("the upstream's instead of an answer", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.toldServer()
			require.NoError(t, l.server.CloseWrite())
			l.toldClient()
			l.nothing(l.client)
			send(t, l.client, up(0x88, ""))
			l.over(goAwayLinger)
		})
	})
	t.Run("the upstream breaks off", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.toldServer()
			l.server.w.CloseWithError(errBroken)
			l.toldClient()
			send(t, l.client, up(0x88, ""))
			l.over(goAwayLinger)
		})
	})
	t.Run("the upstream's before it is told", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.server.Close()
			l.toldClient()
			assert.Zero(t, time.Since(l.begin))
			send(t, l.client, helloMasked)
			l.over(0)
		})
	})
	t.Run("both after their answers", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			l.toldServer()
			go func() {
				_, _ = io.WriteString(l.server, normal)
				l.server.w.CloseWithError(errBroken)
			}()
			l.toldClient()
			time.Sleep(10 * time.Millisecond)
			send(t, l.client, up(0x88, ""))
			l.over(goAwayLinger + 10*time.Millisecond)
		})
	})
}

// What are no frames has no place for a Close.
func TestGoAwayCutsWhatAreNoFrames(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		for _, upstream := range []bool{true, false} {
			leave(t, func(l *leaving) {
				from, to := l.client, l.server
				if upstream {
					from, to = to, from
				}
				send(t, from, "plain ")
				receive(t, to, "plain ")
				send(t, from, hello+helloMasked) // and stays so
				receive(t, to, hello+helloMasked)
				l.goAway()
				l.over(0)
				l.nothing(l.client, l.server)
			})
		}
	})
	t.Run("after", func(t *testing.T) {
		leave(t, func(l *leaving) {
			l.goAway()
			send(t, l.client, "plain")
			l.over(0)
			l.nothing(l.client, l.server)
		})
	})
}

func TestGoAwayIsNotHeldUpByIdleTime(t *testing.T) {
	leave(t, func(l *leaving) {
		time.Sleep(time.Minute - time.Millisecond)
		l.goAway()
		l.toldServer() // although the tunnel has been idle by now
		l.over(goAwayGrace)
	})
}

func TestGoAwayBeforeTheTunnelRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		var names []string
		tunnel := NewTunnel(TunnelConfig{Client: front, Upstream: back, Go: func(name string, f func()) bool {
			names = append(names, name)
			go f()
			return true
		}})
		tunnel.GoAway()
		time.Sleep(goAwayGrace / 2)
		l := &leaving{T: t, tunnel: tunnel, client: client, server: server, done: make(chan result, 1), begin: time.Now()}
		go func() {
			up, down, err := tunnel.Run()
			l.done <- result{up, down, err}
		}()
		l.toldServer()
		send(t, server, normal)
		l.toldClient()
		l.over(goAwayGrace / 2)
		assert.Equal(t, []string{"tunnel close", "tunnel close", "tunnel"}, names)
	})
	synctest.Test(t, func(t *testing.T) { // and it never does
		client, front := duplex()
		back, server := duplex()
		tunnel := NewTunnel(TunnelConfig{Client: front, Upstream: back})
		tunnel.GoAway()
		time.Sleep(goAwayGrace)
		closed(t, client, server)
		tunnel.Close()
		tunnel.Close()
		tunnel.GoAway()
		tunnel.Cut(nil)
	})
}

func TestGoAwayWithoutTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		first := true
		tunnel := NewTunnel(TunnelConfig{Client: front, Upstream: back, Go: func(_ string, f func()) bool {
			if !first {
				return false
			}
			first = false
			go f()
			return true
		}})
		done := make(chan error, 1)
		go func() {
			_, _, err := tunnel.Run()
			done <- err
		}()
		synctest.Wait()
		begin := time.Now()
		tunnel.GoAway()
		require.NoError(t, <-done)
		assert.Zero(t, time.Since(begin))
		closed(t, client, server)
	})
}

func TestCutEndsATunnelAtOnce(t *testing.T) {
	for _, going := range []bool{true, false} {
		leave(t, func(l *leaving) {
			l.begin = time.Now()
			if going {
				l.goAway()
			}
			l.tunnel.Cut(io.ErrUnexpectedEOF)
			l.over(0)
			l.nothing(l.client, l.server)
		})
	}
}

// A stream without a pause is cut between two of its frames, over sockets and in pieces that end anywhere.
func TestGoAwayUnderLoad(t *testing.T) {
	client, front := sockets(t)
	back, server := sockets(t)
	tunnel := NewTunnel(TunnelConfig{Client: front, Upstream: back, Go: func(_ string, f func()) bool { go f(); return true }})
	done := make(chan error, 1)
	go func() {
		_, _, err := tunnel.Run()
		done <- err
	}()
	heard := make(chan error, 2)
	listen := func(conn net.Conn, masked bool) { heard <- framesAndOneClose(conn, masked) }
	talk := func(conn net.Conn, masked bool) {
		for n := 0; ; n += 77 {
			if _, err := io.WriteString(conn, frame(0x82, strings.Repeat("x", n%20_000), masked)); err != nil {
				return
			}
		}
	}
	go listen(client, false)
	go listen(server, true)
	go talk(client, true)
	go talk(server, false)
	tunnel.GoAway()
	assert.NoError(t, <-heard)
	assert.NoError(t, <-heard)
	require.NoError(t, <-done)
}

// framesAndOneClose reads frames as they come, some at least, up to a Close of ours and the end after it. It keeps none of them, so that the
// test has nothing to collect while the tunnel's times run.
func framesAndOneClose(conn net.Conn, masked bool) error {
	br := bufio.NewReader(conn)
	for n := 0; ; n++ {
		head, err := br.Peek(2)
		if err != nil {
			return fmt.Errorf("after %d frames: %w", n, err)
		}
		header, length := 2, int64(head[1]&127)
		if length == 126 {
			header = 4
			if head, err = br.Peek(header); err != nil {
				return fmt.Errorf("within the header of frame %d: %w", n, err)
			}
			length = int64(binary.BigEndian.Uint16(head[2:]))
		}
		if masked {
			header += 4
		}
		kind := head[0]
		if _, err := io.CopyN(io.Discard, br, int64(header)+length); err != nil {
			return fmt.Errorf("within frame %d: %w", n, err)
		}
		switch {
		case kind == 0x88 && length == 2 && n > 0:
			if rest, _ := io.ReadAll(br); len(rest) > 0 {
				return fmt.Errorf("%d bytes after the Close", len(rest))
			}
			return nil
		case kind != 0x82:
			return fmt.Errorf("frame %d: kind %#x of %d bytes", n, kind, length)
		}
	}
}

// sockets returns the two ends of a connection.
func sockets(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}
