package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// The peers are clients that keep many connections and do little on each.
type peers struct {
	mu      sync.Mutex
	conns   []net.Conn
	slow    *slowness
	streams *streams
}

func (p *peers) role() role {
	return role{
		"hold":    does(p.hold),
		"await":   does(p.await),
		"drop":    does(p.drop),
		"cut":     does(p.cut),
		"slow":    does(p.beSlow),
		"stop":    does(p.stopSlow),
		"streams": does(p.openStreams),
		"quiet":   does(p.quietStreams),
		"ended":   does(p.endedStreams),
	}
}

type holdConfig struct {
	Addr      string
	N         int
	Bytes     []byte // sent on each connection, "{k}" as its number
	Head      bool   // the head of a response is read
	Refusable bool   // the candidate may end a connection before it has read all
}

const (
	dialsAtOnce  = 64
	peerPatience = 30 * time.Second
)

// each calls f for the numbers below n, several at a time, and returns the
// first error.
func each(n int, f func(i int) error) error {
	var (
		all  sync.WaitGroup
		next = make(chan int)
		once sync.Once
		err  error
	)
	for range min(n, dialsAtOnce) {
		all.Go(func() {
			for i := range next {
				if e := f(i); e != nil {
					once.Do(func() { err = e })
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	return err
}

func (p *peers) hold(c holdConfig) (nothing, error) {
	return nothing{}, each(c.N, func(i int) error {
		conn, err := dialNarrow(c.Addr)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.conns = append(p.conns, conn)
		p.mu.Unlock()
		if _, err := conn.Write(bytes.ReplaceAll(c.Bytes, []byte("{k}"), strconv.AppendInt(nil, int64(i), 10))); err != nil && !c.Refusable {
			return err
		}
		if c.Head {
			return readHead(conn)
		}
		return nil
	})
}

func dial(addr string) (*net.TCPConn, error) { return dialWith(addr, nil) }

// dialNarrow connects as from afar: by the loopback's own segments of 64 KiB
// the system would buffer megabytes for a client that does not read.
func dialNarrow(addr string) (*net.TCPConn, error) {
	return dialWith(addr, func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1460),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10))
		})
		return errors.Join(controlErr, err)
	})
}

func dialWith(addr string, control func(network, address string, c syscall.RawConn) error) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: control}
	conn, err := dialer.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(peerPatience)); err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// readHead reads a response's head, which must say 200, and whatever of its
// body came with it.
func readHead(conn net.Conn) error {
	var head []byte
	buf := make([]byte, 4<<10)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := conn.Read(buf)
		if head = append(head, buf[:n]...); err != nil {
			return fmt.Errorf("after %q: %w", head, err)
		}
	}
	if statusOf(head) != 200 {
		return fmt.Errorf("answered %q", head)
	}
	return nil
}

// await reads a response's head on each connection.
func (p *peers) await(nothing) (nothing, error) {
	return nothing{}, each(len(p.conns), func(i int) error { return readHead(p.conns[i]) })
}

func (p *peers) drop(nothing) (nothing, error) {
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	return nothing{}, nil
}
