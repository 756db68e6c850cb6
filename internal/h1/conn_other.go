//go:build !unix

package h1

import "net"

// socket is nothing that can be used here.
type socket struct{}

func (*socket) open(*conn, net.Conn)                   {}
func (*socket) ok() bool                               { return false }
func (*socket) look() (seen look, ok bool)             { return 0, false }
func (*socket) fill() error                            { return nil }
func (*socket) post(*message, bool) (look, int, error) { return lookAlive, 0, nil }
