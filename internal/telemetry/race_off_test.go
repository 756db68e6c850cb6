//go:build !race

package telemetry

// raceEnabled says that allocation counts mean nothing.
const raceEnabled = false
