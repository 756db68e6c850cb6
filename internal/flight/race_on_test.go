//go:build race

package flight

// raceEnabled: the race detector allocates, so allocation counts mean nothing.
const raceEnabled = true
