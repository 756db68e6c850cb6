package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used since it began, and what it holds now.
type usage struct {
	CPU     time.Duration // user and system time
	Mallocs uint64
	Bytes   uint64 // allocated
	RSS     uint64 // resident bytes now; where the system does not tell, the most there ever were

	memory
	Goroutines  int64
	Descriptors int64
}

// memory is what the Go runtime has in use, in bytes.
type memory struct {
	Heap   uint64 // objects, dead ones not yet swept among them
	Spans  uint64 // the heap that holds them, with its gaps
	Stacks uint64 // of goroutines
	Live   uint64 // what the last collection found alive
}

// held is what goroutines and what they refer to take, right after a collection.
func (m memory) held() float64 { return float64(m.Heap + m.Stacks) }

func used() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	v := readMetrics("/gc/heap/allocs:objects", "/gc/heap/tiny/allocs:objects", "/gc/heap/allocs:bytes", "/sched/goroutines:goroutines")
	return usage{
		CPU:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Mallocs: v[0] + v[1],
		Bytes:   v[2],
		RSS:     resident(r.Maxrss),

		memory:      readMemory(),
		Goroutines:  int64(v[3]),
		Descriptors: descriptors(),
	}, nil
}

func readMemory() memory {
	v := readMetrics("/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/stacks:bytes", "/gc/heap/live:bytes")
	return memory{Heap: v[0], Spans: v[0] + v[1], Stacks: v[2], Live: v[3]}
}

func readMetrics(names ...string) []uint64 {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	values := make([]uint64, len(names))
	for i, s := range samples {
		values[i] = s.Value.Uint64()
	}
	return values
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

// descriptors counts the open ones, but for that which counts them.
func descriptors() int64 {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return -1 // as likely as not because there are too many
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return int64(len(names)) - 1
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
