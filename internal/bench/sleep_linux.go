package main

import (
	"syscall"
	"time"
)

// sleepPrecisely does not wait for the runtime's timers, which are a
// millisecond late while nothing else goes on.
func sleepPrecisely(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // when it is woken early, its caller was late anyway
}
