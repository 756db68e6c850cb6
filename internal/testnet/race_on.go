//go:build race

package testnet

// RaceEnabled tells that the race detector runs: allocation counts mean nothing then.
const RaceEnabled = true
