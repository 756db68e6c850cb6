//go:build !race

package forward

// raceEnabled tells tests that allocations cannot be counted.
const raceEnabled = false
