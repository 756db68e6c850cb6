// Package roundtrip sends requests through an [http.RoundTripper]: net/http's
// HTTP/2 client on connections of our own, or whatever a caller brings along.
//
// It adds what the interface has no words for: interim responses in their
// order, whether anything of a request can have been seen, the times of an
// exchange, an end from outside at any moment, and a content whose end is
// proven. What a round tripper answers is not trusted to be well formed.
package roundtrip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
)

// An Observer is told what happens before the response.
type Observer interface {
	// Interim is told of each 1xx response but 101, in their order and never once
	// Do has returned; an error ends the exchange.
	Interim(status int, header http.Header) error
}

// A TimeoutError says which time ran out.
type TimeoutError string

// The times of an exchange.
const (
	HeadTimeout TimeoutError = "the time to the response header"
	IdleTimeout TimeoutError = "the body idle time"
	EndTimeout  TimeoutError = "the maximum duration"
)

func (e TimeoutError) Error() string { return string(e) + " ran out" }

// Timeout is true.
func (e TimeoutError) Timeout() bool { return true }

// ProtocolError is what a response, or the round tripper, does wrong. It holds
// nothing that came from the upstream.
type ProtocolError string

func (e ProtocolError) Error() string { return "malformed response: " + string(e) }

// BrokenError is a round trip that failed, or a content that broke off.
type BrokenError struct {
	Err    error
	Unsent bool // the upstream cannot have seen any of the request, or has said that it did nothing about it
	Left   bool // and that because the connection, which had been used before, came to its end
	Heard  bool // it has begun to answer
	Reused bool // the connection had been used before
}

func (e *BrokenError) Error() string { return "round trip broke: " + e.Err.Error() }

// Unwrap returns what the round tripper failed with.
func (e *BrokenError) Unwrap() error { return e.Err }

// failed says what the round tripper's failure means.
func (x *Exchange) failed(err error) error {
	if cause := x.cause(); cause != nil {
		return cause
	}
	heard := x.heard.Load()
	if isProtocolError(err) {
		return err
	}
	if malformed(err) || !x.Own && heard && !brokeOff(err) && !isStreamError(err) {
		return fmt.Errorf("%w: %w", ProtocolError("it cannot be understood"), err)
	}
	unsent := x.Own && !heard && (!x.sent.Load() || refused(err))
	reused := x.reused.Load()
	return &BrokenError{Err: err, Unsent: unsent, Left: unsent && reused && !isStreamError(err), Heard: heard, Reused: reused}
}

// brokeOff reports whether a connection's end or failure is behind err, rather
// than what came over it.
func brokeOff(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// streamError is the shape of net/http's error for an HTTP/2 stream, which is
// how that lets itself be had by errors.As.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream error %d", e.Code) }

// refusedStream is the code of a stream that was not processed (RFC 9113 §7).
const refusedStream = 0x7

// What net/http has no type or variable for. Were the texts to change, errors
// would merely mean less.
const (
	fromPeer = "received from peer"
	goneAway = "http2: Transport received Server's graceful shutdown GOAWAY"
	sentAway = "http2: Transport received GOAWAY from server ErrCode:" // and the code: a connection's first stream is left out
)

func isProtocolError(err error) bool {
	_, ok := errors.AsType[ProtocolError](err)
	return ok
}

func isStreamError(err error) bool {
	_, ok := errors.AsType[streamError](err)
	return ok
}

// refused reports whether the upstream has said that it did nothing about the
// request: by REFUSED_STREAM, or by a GOAWAY that leaves the stream out (RFC
// 9113 §8.7).
func refused(err error) bool {
	if stream, ok := errors.AsType[streamError](err); ok {
		return stream.Code == refusedStream && stream.Cause != nil && stream.Cause.Error() == fromPeer
	}
	return err.Error() == goneAway || strings.HasPrefix(err.Error(), sentAway)
}

// malformed reports whether the response broke the protocol's rules.
func malformed(err error) bool {
	if stream, ok := errors.AsType[streamError](err); ok {
		return stream.Cause == nil || stream.Cause.Error() != fromPeer
	}
	_, ok := errors.AsType[textproto.ProtocolError](err)
	return ok
}
