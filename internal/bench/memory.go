package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// What may be held, in KiB, beside net/http's own part of a request.
const (
	idleKiB   = 4  // for an idle upstream connection, and no goroutine
	waitKiB   = 32 // for a request that waits for its response's head
	streamKiB = 96 // for one whose body is being streamed to a slow reader
)

// streamed is more than all buffers on the way take.
const streamed = 64 << 20

// share is a part of the memory that so many take together.
type share struct{ KiB, Stacks, RSS, Goroutines float64 }

func shareOf(before, after usage, n int) share {
	return share{
		KiB:        (after.held() - before.held()) / float64(n) / 1024,
		Stacks:     (float64(after.Stacks) - float64(before.Stacks)) / float64(n) / 1024,
		RSS:        (float64(after.RSS) - float64(before.RSS)) / float64(n) / 1024,
		Goroutines: float64(after.Goroutines-before.Goroutines) / float64(n),
	}
}

// checkMemory measures what each of many connections and requests holds: heap
// and stacks in use after collections, with them less without them.
func checkMemory(ctx context.Context, s settings) error {
	n := s.count(500)
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Conns: 10_000}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	m := memoryCheck{r, n, usage{}}
	idle, err := m.idle(ctx)
	if err != nil {
		return fmt.Errorf("idle connections: %w", err)
	}
	waiting, err := m.waiting(ctx)
	if err != nil {
		return fmt.Errorf("requests that wait: %w", err)
	}
	streaming, err := m.streaming(ctx)
	if err != nil {
		return fmt.Errorf("bodies that stream: %w", err)
	}
	bareWaiting, err := bareShare(ctx, "waiting", n)
	if err != nil {
		return fmt.Errorf("a bare handler that waits: %w", err)
	}
	bareStreaming, err := bareShare(ctx, "streaming", n)
	if err != nil {
		return fmt.Errorf("a bare handler that streams: %w", err)
	}
	return judgeMemory(n, []memoryRow{
		{"an idle upstream connection", idle, share{}, idleKiB, 0},
		{"a request that waits for the head", waiting, bareWaiting, waitKiB, -1},
		{"a body that streams to a slow reader", streaming, bareStreaming, streamKiB, -1},
	})
}

type memoryRow struct {
	what       string
	of, bare   share
	kib        float64 // at most
	goroutines float64 // at most; negative: as many as there are
}

func judgeMemory(n int, rows []memoryRow) error {
	fmt.Printf("%s\n\neach of %d, in KiB:\n", machine(), n)
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\theap+stacks\tmay be\tstacks\tof it net/http's\tRSS\tgoroutines\tof it net/http's\t")
	var faults []error
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.1f\t%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t\n", r.what, r.of.KiB, r.kib, r.of.Stacks, r.bare.KiB, r.of.RSS, r.of.Goroutines, r.bare.Goroutines)
		if r.of.KiB > r.kib {
			faults = append(faults, fmt.Errorf("%s takes %.1f KiB, may take %.0f", r.what, r.of.KiB, r.kib))
		}
		if r.goroutines >= 0 && r.of.Goroutines > r.goroutines+0.01 { // a timer's, for a moment
			faults = append(faults, fmt.Errorf("%s has %.2f goroutines, may have %.0f", r.what, r.of.Goroutines, r.goroutines))
		}
	}
	return errors.Join(append(faults, t.Flush())...)
}

type memoryCheck struct {
	*rig
	n      int
	before usage // without any connection, but after as many as there will be
}

// idle has as many connections used at once, and looks at them once their
// clients have left.
func (m *memoryCheck) idle(ctx context.Context) (share, error) {
	fresh, err := m.usage()
	if err != nil {
		return share{}, err
	}
	for range 2 { // what grows once has grown
		if err = m.use(ctx); err == nil {
			err = m.alone(ctx, fresh.Descriptors)
		}
		if err != nil {
			return share{}, err
		}
	}
	if m.before, err = m.calm(); err != nil {
		return share{}, err
	}
	if err := m.use(ctx); err != nil {
		return share{}, err
	}
	after, err := m.calm()
	if err != nil {
		return share{}, err
	}
	if at, err := m.counts(); err != nil || at.Open != int64(m.n) {
		return share{}, fmt.Errorf("%d connections were kept, want %d: %w", at.Open, m.n, err)
	}
	return shareOf(m.before, after, m.n), m.alone(ctx, fresh.Descriptors)
}

// use sends requests that are all at the upstream at once.
func (m *memoryCheck) use(ctx context.Context) error {
	err := m.peers.tell("hold", holdConfig{Addr: m.addr, N: m.n, Bytes: get("/hold")})
	if err == nil {
		err = m.holds(ctx, int64(m.n))
	}
	if err == nil {
		err = m.origin.tell("release", false)
	}
	if err == nil {
		err = m.peers.tell("await", nothing{})
	}
	return errors.Join(err, m.peers.tell("drop", nothing{}))
}

func (m *memoryCheck) waiting(ctx context.Context) (share, error) {
	err := m.peers.tell("hold", holdConfig{Addr: m.addr, N: m.n, Bytes: get("/hold")})
	if err == nil {
		err = m.holds(ctx, int64(m.n))
	}
	return m.shared(ctx, err)
}

func (m *memoryCheck) streaming(ctx context.Context) (share, error) {
	err := m.peers.tell("hold", holdConfig{Addr: m.addr, N: m.n, Bytes: get(fmt.Sprintf("/stream/%d", streamed)), Head: true})
	if err == nil {
		err = m.stalled(ctx, int64(m.n))
	}
	return m.shared(ctx, err)
}

// shared measures, and has the peers leave.
func (m *memoryCheck) shared(ctx context.Context, err error) (share, error) {
	if err != nil {
		return share{}, errors.Join(err, m.peers.tell("drop", nothing{}))
	}
	after, err := m.calm()
	if at, cerr := m.counts(); err == nil && at.Held != int64(m.n) {
		err = fmt.Errorf("%d requests were there to the end, want %d: %w", at.Held, m.n, cerr)
	}
	err = errors.Join(err, m.peers.tell("drop", nothing{}), m.origin.tell("release", false)) // a fetch may outlive its client
	if err == nil {
		err = m.holds(ctx, 0)
	}
	if err == nil {
		err = m.alone(ctx, m.before.Descriptors)
	}
	return shareOf(m.before, after, m.n), err
}

// bareShare is what net/http's server takes for a handler that does the same.
func bareShare(ctx context.Context, kind string, n int) (of share, err error) {
	r, err := newRig(ctx, candidateConfig{Kind: kind}, originConfig{})
	if err != nil {
		return share{}, err
	}
	defer r.stop()
	for range 2 { // the second time, what grows once has grown
		before, err := r.calm()
		if err != nil {
			return share{}, err
		}
		err = r.peers.tell("hold", holdConfig{Addr: r.addr, N: n, Bytes: get("/"), Head: kind == "streaming"})
		if err == nil {
			err = until(ctx, 20*time.Second, "the handlers to begin", func() (bool, error) {
				now, err := r.usage()
				return now.Goroutines >= before.Goroutines+int64(n), err
			})
		}
		after, calmErr := r.calm()
		if err := errors.Join(err, calmErr, r.peers.tell("drop", nothing{})); err != nil {
			return share{}, err
		}
		if err := r.alone(ctx, before.Descriptors); err != nil {
			return share{}, err
		}
		of = shareOf(before, after, n)
	}
	return of, nil
}
