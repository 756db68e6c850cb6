package work

import "context"

// Aside runs f on a goroutine of its own, and waits for it as long as ctx lasts; not
// ok: no longer than that. What f does then is lost, and it is not waited for any
// more: f must not touch what somebody else may use by then, nor panic.
func Aside[T any](ctx context.Context, f func() T) (result T, ok bool) {
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case result = <-done:
		return result, true
	case <-ctx.Done():
		return result, false
	}
}
