//go:build !linux

package main

import (
	"context"
	"time"
)

func sleepPrecisely(d time.Duration) { pause(context.Background(), d) }
