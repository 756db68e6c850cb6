//go:build race

package rfc9111

// raceEnabled is set where the race detector's own allocations would be counted.
const raceEnabled = true
