package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// A bound is what a subject may cost beside the one it is compared with.
type bound struct {
	workload, subject string
	goal, most        float64 // of the CPU per request, as ratios; no goal: 0
}

// checkCost measures what a small answer may cost beside its peers.
func checkCost(ctx context.Context, s settings) error {
	s.only = "1KiB GET x64"
	_, err := judgeCost(ctx, s, []bound{
		{"1KiB GET x64", "hit", 0, 1.35},
		{"1KiB GET x64", "miss", 0, 1.1},
	})
	return err
}

// passAllocations is how many more than a bare handler's a proxied GET may make.
const passAllocations = 16

// checkUpstream measures what a request that goes upstream may cost beside a
// ReverseProxy without telemetry.
func checkUpstream(ctx context.Context, s settings) error {
	s.only = "x64"
	rounds, err := judgeCost(ctx, s, []bound{
		{"1KiB GET x64", "pass", 0.60, 0.70},
		{"1KiB POST x64", "pass", 0.60, 0.70},
		{"100KiB GET x64", "pass", 0.65, 0.70},
		{"1KiB GET x64", "traced", 0, 0.85},
		{"1KiB POST x64", "traced", 0, 0.85},
		{"100KiB GET x64", "traced", 0, 0.85},
	})
	faults := []error{err}
	mallocs := map[string]float64{}
	for _, of := range summarise(rounds) {
		mallocs[of.Workload+" "+of.Subject] = of.Mallocs.Value
	}
	for _, workload := range []string{"1KiB GET x64", "100KiB GET x64"} {
		least, ok := mallocs[workload+" bare"]
		if !ok {
			continue // nothing was measured
		}
		above := mallocs[workload+" pass"] - least
		fmt.Printf("%s: pass makes %.1f allocations more than bare, may make %d\n", workload, above, passAllocations)
		if above > passAllocations {
			faults = append(faults, fmt.Errorf("%s: pass makes %.1f allocations more than bare, may make %d", workload, above, passAllocations))
		}
	}
	return errors.Join(faults...)
}

// judgeCost measures, reports, and finds whatever is over its bound.
func judgeCost(ctx context.Context, s settings, bounds []bound) ([]round, error) {
	rounds, err := measure(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := report(os.Stdout, rounds); err != nil {
		return nil, err
	}
	found := map[string]ratio{}
	for _, r := range ratios(rounds) {
		found[r.Workload+" "+r.Subject] = r
	}
	var faults []error
	fmt.Println()
	for _, b := range bounds {
		r, ok := found[b.workload+" "+b.subject]
		if !ok {
			faults = append(faults, fmt.Errorf("%s: %s was not measured", b.workload, b.subject))
			continue
		}
		fmt.Println(b.verdict(r))
		if !(r.CPU.Value <= b.most) {
			faults = append(faults, errors.New(b.verdict(r)))
		}
	}
	return rounds, errors.Join(faults...)
}

func (b bound) verdict(r ratio) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s costs %.2f ±%.2f of %s's CPU, may cost %.2f", b.workload, b.subject, r.CPU.Value, r.CPU.Spread, r.Against, b.most)
	if b.goal > 0 && r.CPU.Value > b.goal {
		fmt.Fprintf(&s, " (the goal is %.2f)", b.goal)
	}
	return s.String()
}
