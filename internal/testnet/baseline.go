package testnet

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// Base is what a process held at one moment: its goroutines by the function that started them, and its file descriptors by kind.
type Base struct {
	t          testing.TB
	goroutines map[string]int
	files      map[string]int // nil where the platform does not show them
}

// Baseline notes what is held now and checks when the test ends, after the cleanups that are registered later: so call it first. It
// counts the whole process; nothing else may run beside it.
func Baseline(t testing.TB) *Base {
	t.Helper()
	_ = listen(t).Close() // the runtime's own poll descriptors come with the first socket and stay
	goroutines, _ := goroutines()
	b := &Base{t: t, goroutines: goroutines, files: files()}
	t.Cleanup(b.Check)
	return b
}

// Check waits until goroutines and descriptors are back, for at most two seconds, and fails the test with what is left over.
func (b *Base) Check() {
	b.t.Helper()
	if poll(aftermath, func() bool { return b.left() == "" }) {
		return
	}
	b.t.Errorf("testnet: left over after %v:\n%s", aftermath, b.left())
}

func (b *Base) left() string {
	var out strings.Builder
	now, stacks := goroutines()
	for _, creator := range grown(b.goroutines, now) {
		fmt.Fprintf(&out, "%d goroutines, before %d, of %s:\n%s\n", now[creator], b.goroutines[creator], creator, stacks[creator])
	}
	open := files()
	for _, kind := range grown(b.files, open) {
		fmt.Fprintf(&out, "%d descriptors, before %d, of %s\n", open[kind], b.files[kind], kind)
	}
	return out.String()
}

func grown(before, now map[string]int) []string {
	names := slices.Sorted(maps.Keys(now))
	return slices.DeleteFunc(names, func(name string) bool { return now[name] <= before[name] })
}

// goroutines counts by creator and keeps the stacks.
func goroutines() (count map[string]int, stacks map[string]string) {
	buf := make([]byte, 1<<20)
	for n := runtime.Stack(buf, true); ; n = runtime.Stack(buf, true) {
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	count, stacks = map[string]int{}, map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		creator := "main"
		if _, rest, ok := strings.Cut(stack, "\ncreated by "); ok {
			creator, _, _ = strings.Cut(rest, "\n")
			creator, _, _ = strings.Cut(creator, " in goroutine ")
		}
		count[creator]++
		stacks[creator] += stack + "\n\n"
	}
	return count, stacks
}

// files counts descriptors by kind: "socket", "pipe", or a path.
func files() map[string]int {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	count := map[string]int{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the descriptor of this very listing
		}
		kind, _, _ := strings.Cut(target, ":[")
		count[kind]++
	}
	return count
}
