//go:build !race

package work

// raceEnabled: the race detector allocates, so allocation counts mean nothing.
const raceEnabled = false
