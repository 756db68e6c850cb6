package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used since it began.
type usage struct {
	CPU     time.Duration // user and system time
	Mallocs uint64
	Bytes   uint64 // allocated
	RSS     uint64 // resident bytes now; where the system does not tell, the most there ever were
}

func used() (*usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return nil, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &usage{
		CPU:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Mallocs: m.Mallocs,
		Bytes:   m.TotalAlloc,
		RSS:     resident(r.Maxrss),
	}, nil
}

func resident(maxRSS int64) uint64 {
	var size, pages uint64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(b), &size, &pages); err == nil {
			return pages * uint64(os.Getpagesize())
		}
	}
	return uint64(maxRSS) // bytes where there is no /proc
}

// machine says where the figures come from.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s %s/%s, %d x %s, %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), model,
		time.Now().UTC().Format(time.DateOnly))
}
