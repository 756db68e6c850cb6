// Package testnet is the network that the tests of this module run on: a scripted upstream that journals every byte it receives,
// a raw client that says exactly how each response ended, an in-memory listener for synctest bubbles, recorders, and baselines of
// goroutines and file descriptors. Its HTTP/1.1 parsers are oracles: they share no code with net/http and accept only what
// RFC 9112 lets a sender generate, so what a lenient peer would forgive is reported as malformed.
//
// Scripts, clients and recorders may be used on any goroutine. What can end a test (Settle, Up.Await, the constructors) belongs on
// the test's own.
package testnet

import (
	"testing"
	"time"
)

const (
	patience  = 5 * time.Second       // how long anything is waited for that should come
	quiet     = 50 * time.Millisecond // how long Exchange listens for what should not come
	doubt     = time.Second           // the same where it cannot know how many answers should come
	aftermath = 2 * time.Second       // how long goroutines and descriptors may take to go away
)

// Settle waits until cond holds, for at most five seconds, and ends the test if it does not. It is the only polling loop: where
// an event can be waited for (Up.Await, a channel), wait for that.
func Settle(t testing.TB, what string, cond func() bool) {
	t.Helper()
	SettleWithin(t, patience, what, cond)
}

// SettleWithin is Settle for what takes others longer.
func SettleWithin(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !poll(limit, cond) {
		t.Fatalf("testnet: %s: not so after %v", what, limit)
	}
}

func poll(limit time.Duration, cond func() bool) bool {
	if cond() {
		return true
	}
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if cond() {
				return true
			}
		case <-end.C:
			return cond()
		}
	}
}
