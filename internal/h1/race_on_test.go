//go:build race

package h1

// raceEnabled: the race detector allocates, so allocation counts mean nothing.
const raceEnabled = true
