//go:build !race

package store

// raceEnabled: the race detector allocates, so allocation counts mean nothing.
const raceEnabled = false
