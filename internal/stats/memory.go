package stats

import (
	"cmp"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
)

const (
	memoryWindow = 10 // samples
	topSites     = 5
)

// Memory watches whether this process's live memory grows steadily, and where that was allocated. It is not safe for
// concurrent use. Use NewMemory. Whoever makes one keeps the runtime's memory profile in the program, and nobody else
// does: the linker leaves it out where no code reaches it.
type Memory struct {
	now     []metrics.Sample
	samples []MemorySample // oldest first
	taken   int            // since bases[1]
	bases   [2]profile     // of the heap: an older one and a newer, each a window apart
}

// MemorySample is what the process held at one moment.
type MemorySample struct {
	Live        uint64 // bytes that the last garbage collection left
	Goroutines  int
	Descriptors int // -1 where the platform does not show them
}

// A Site is a line that allocates.
type Site struct {
	Function, File string
	Line           int
	Bytes          int64 // in use more than before, estimated from the runtime's sampling
}

// NewMemory takes a first profile, with which later ones are compared.
func NewMemory() *Memory {
	m := &Memory{now: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/sched/goroutines:goroutines"}}}
	m.rebase()
	return m
}

// Sample takes a sample. It returns those of the window, the newest last, until the next call; and, where they grow
// steadily, by how much from one to the next. After that the window begins anew.
func (m *Memory) Sample() (window []MemorySample, rise float64, grows bool) {
	metrics.Read(m.now)
	s := MemorySample{Live: m.value(0), Goroutines: int(min(m.value(1), math.MaxInt32)), Descriptors: descriptors()}
	if len(m.samples) == memoryWindow {
		m.samples = slices.Delete(m.samples, 0, 1)
	}
	m.samples = append(m.samples, s)
	live := make([]uint64, len(m.samples))
	for i := range m.samples {
		live[i] = m.samples[i].Live
	}
	window = m.samples
	if rise, grows = Grows(live); grows {
		m.samples = nil
		return window, rise, true
	}
	if m.taken++; m.taken > memoryWindow {
		m.rebase()
	}
	return window, rise, false
}

// Sites returns the lines whose allocations in use have grown most, the most first: since one or two windows ago, or
// since the last call.
func (m *Memory) Sites() []Site {
	now := takeProfile()
	grown := growth(m.bases[0], now)
	m.bases = [2]profile{now, now}
	m.taken = 0
	return grown[:min(len(grown), topSites)]
}

func (m *Memory) rebase() {
	m.taken = 0
	now := takeProfile()
	if m.bases[1] == nil {
		m.bases[1] = now
	}
	m.bases = [2]profile{m.bases[1], now}
}

func (m *Memory) value(i int) uint64 {
	if m.now[i].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return m.now[i].Value.Uint64()
}

// descriptors counts the open files of the process.
func descriptors() int {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return max(len(names)-1, 0) // but for dir itself
}

// A stack is where something was allocated, as the runtime's profile has it.
type stack = [32]uintptr

// A profile is what is in use, by where it was allocated.
type profile map[stack]int64

// takeProfile reads the heap profile, which is as old as the garbage collection before the last.
func takeProfile() profile {
	rate := float64(runtime.MemProfileRate)
	n, _ := runtime.MemProfile(nil, false)
	var records []runtime.MemProfileRecord
	for ok := false; !ok; {
		records = make([]runtime.MemProfileRecord, n+50) //nolint:mnd // some more may come in between
		n, ok = runtime.MemProfile(records, false)
	}
	p := make(profile, n)
	for _, r := range records[:n] {
		p[r.Stack0] += inUse(r.InUseObjects(), r.InUseBytes(), rate)
	}
	return p
}

// inUse estimates how much there is of what the profile has caught, one of about so many bytes: an allocation of size s
// is caught with the probability 1-exp(-s/rate).
func inUse(objects, bytes int64, rate float64) int64 {
	if objects <= 0 || bytes <= 0 || rate <= 1 {
		return max(bytes, 0)
	}
	size := float64(bytes) / float64(objects)
	return int64(float64(bytes) / -math.Expm1(-size/rate))
}

// growth returns the lines that have more in use than before, the most first.
func growth(before, now profile) []Site {
	sites := make(map[Site]int64)
	for at, bytes := range now {
		if more := bytes - before[at]; more != 0 {
			sites[siteOf(at)] += more
		}
	}
	for at, bytes := range before {
		if _, ok := now[at]; !ok {
			sites[siteOf(at)] -= bytes
		}
	}
	grown := make([]Site, 0, len(sites))
	for _, s := range slices.SortedFunc(maps.Keys(sites), func(a, b Site) int {
		return cmp.Or(cmp.Compare(sites[b], sites[a]), strings.Compare(a.File, b.File), a.Line-b.Line)
	}) {
		if s.Bytes = sites[s]; s.Bytes > 0 {
			grown = append(grown, s)
		}
	}
	return grown
}

// siteOf returns the line that asked for the memory: the first that is not the runtime's own.
func siteOf(at stack) Site {
	n := slices.Index(at[:], 0)
	if n < 0 {
		n = len(at)
	}
	var s Site
	for frames, more := runtime.CallersFrames(at[:n]), n > 0; more; {
		var f runtime.Frame
		f, more = frames.Next()
		s = Site{Function: f.Function, File: filepath.ToSlash(f.File), Line: f.Line}
		if !strings.HasPrefix(f.Function, "runtime.") {
			break
		}
	}
	return s
}
