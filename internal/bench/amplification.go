package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// What an input may cause to be held beyond what any request may (streamKiB).
const (
	amplified     = 100     // times its own size
	amplifiedMost = 1 << 20 // and never more
	leftMost      = 8 << 20 // by all of them together, once they are gone
)

// checkAmplification has each hostile input open on many connections at once,
// and weighs what the process holds meanwhile. -n: other than 1000 of each;
// -only: inputs whose name contains it.
func checkAmplification(ctx context.Context, s settings) error {
	config := candidateConfig{Kind: "gateway", Conns: 10_000, Timeout: 20 * time.Second, CacheBytes: 1 << 20}
	r, err := newRig(ctx, config, originConfig{}, "GOGC=10") // garbage is not what is looked for
	if err != nil {
		return err
	}
	defer r.stop()
	a := amplification{rig: r, n: s.count(1000)}
	for range 2 { // what grows once has grown
		if err := a.weigh(ctx, plainInput()); err != nil {
			return fmt.Errorf("plain: %w", err)
		}
	}
	a.plain, a.weights = a.weights[len(a.weights)-1], nil
	first := a.before
	var faults []error
	for _, in := range inputs() {
		if !strings.Contains(in.name, s.only) {
			continue
		}
		if err := a.weigh(ctx, in); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", in.name, err))
			break // the next one would not begin alike
		}
	}
	last, err := r.calm()
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	faults = append(faults, a.report()...)
	left := last.held() - first.held()
	fmt.Printf("left behind: %.1f KiB, may be %d\n", left/1024, leftMost>>10)
	if left > leftMost {
		faults = append(faults, fmt.Errorf("%.1f KiB are left behind", left/1024))
	}
	return errors.Join(append(faults, r.sane(ctx))...)
}

type amplification struct {
	*rig
	n       int
	plain   weight
	before  usage // with nothing open
	weights []weight
}

// weight is what each of many equal inputs made the process hold, in bytes:
// while all were open, and at the most.
type weight struct {
	input
	held, most float64
}

// beyond is how much more than any request may hold this one holds.
func (w weight) beyond() float64 { return max(w.held, w.most) - streamKiB<<10 }

func (w weight) allowed() float64 { return min(amplified*float64(w.size()), amplifiedMost) }

func (a *amplification) weigh(ctx context.Context, in input) (err error) {
	if a.before, err = a.calm(); err != nil {
		return err
	}
	if err := a.candidate.tell("watch", 5*time.Millisecond); err != nil {
		return err
	}
	err = a.peers.tell("hold", holdConfig{Addr: a.addr, N: a.n, Bytes: in.client, Refusable: true})
	open, calmErr := a.calm()
	most, watchErr := ask[memory](a.candidate, "watched", nothing{})
	if err := errors.Join(err, calmErr, watchErr); err != nil {
		return err
	}
	a.weights = append(a.weights, weight{in, (open.held() - a.before.held()) / float64(a.n), (most.held() - a.before.held()) / float64(a.n)})
	if err := errors.Join(a.peers.tell("drop", nothing{}), a.origin.tell("release", false)); err != nil {
		return err
	}
	return a.emptied(ctx)
}

// emptied has whatever still waits answered, until nothing is open.
func (a *amplification) emptied(ctx context.Context) error {
	var last usage
	err := until(ctx, 30*time.Second, "connections to be closed", func() (ok bool, err error) {
		if err := errors.Join(a.origin.tell("release", false), a.origin.tell("hangup", nothing{})); err != nil {
			return false, err
		}
		last, err = a.usage()
		return last.Descriptors <= a.before.Descriptors, err
	})
	if err != nil {
		return fmt.Errorf("%w: %d descriptors, %d before\n%s", err, last.Descriptors, a.before.Descriptors, where(a.candidate))
	}
	return nil
}

// report shows the heaviest, and finds those that are too heavy.
func (a *amplification) report() (faults []error) {
	for _, w := range a.weights {
		if w.beyond() > w.allowed() {
			faults = append(faults, fmt.Errorf("%s: %d bytes have %.1f KiB held beyond %d, may have %.1f", w.name, w.size(), w.beyond()/1024, streamKiB, w.allowed()/1024))
		}
	}
	slices.SortStableFunc(a.weights, func(x, y weight) int { return cmp.Compare(y.beyond(), x.beyond()) })
	fmt.Printf("%s\n\n%d inputs, %d of each at once, in KiB; a plain request has %.1f held, at the most %.1f. The heaviest:\n",
		machine(), len(a.weights), a.n, a.plain.held/1024, a.plain.most/1024)
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "input\tbytes\theld\tat the most\tbeyond %d\tmay be\t\n", streamKiB)
	for _, w := range a.weights[:min(15, len(a.weights))] {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", w.name, w.size(), w.held/1024, w.most/1024, max(0, w.beyond()/1024), w.allowed()/1024)
	}
	return append(faults, t.Flush())
}
