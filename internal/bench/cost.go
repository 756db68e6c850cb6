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

// hitAllocations is how many more than a bare handler's a hit may make.
const hitAllocations = 2

// checkCost measures what an answer of the cache may cost beside a bare handler,
// and what it costs to store one.
func checkCost(ctx context.Context, s settings) error {
	rounds, err := judgeCost(ctx, s, []bound{
		{"1KiB GET x64", "hit", 1.12, 1.25},
		{"100KiB GET x64", "hit", 1.03, 1.10},
		{"1KiB 304 x64", "hit", 1.12, 1.25},
		{"1KiB GET x64", "miss", 0, 1.1},
	})
	return errors.Join(err, judgeAllocations(rounds, "hit", hitAllocations, "1KiB GET x64", "100KiB GET x64", "1KiB 304 x64"))
}

// passAllocations is how many more than a bare handler's a proxied GET may make.
const passAllocations = 14

// checkUpstream measures what a request that goes upstream may cost beside a
// ReverseProxy without telemetry.
func checkUpstream(ctx context.Context, s settings) error {
	s.lines = []string{"1KiB GET x64 bare", "100KiB GET x64 bare"}
	rounds, err := judgeCost(ctx, s, []bound{
		{"1KiB GET x64", "pass", 0.60, 0.70},
		{"1KiB POST x64", "pass", 0.60, 0.70},
		{"100KiB GET x64", "pass", 0.65, 0.70},
		{"1KiB GET x64", "traced", 0, 0.85},
		{"1KiB POST x64", "traced", 0, 0.85},
		{"100KiB GET x64", "traced", 0, 0.85},
	})
	return errors.Join(err, judgeAllocations(rounds, "pass", passAllocations, "1KiB GET x64", "100KiB GET x64"))
}

// judgeAllocations finds where a subject makes more allocations than a bare
// handler by more than it may.
func judgeAllocations(rounds []round, subject string, most float64, workloads ...string) error {
	mallocs := map[string]float64{}
	for _, of := range summarise(rounds) {
		mallocs[of.Workload+" "+of.Subject] = of.Mallocs.Value
	}
	var faults []error
	for _, workload := range workloads {
		least, ok := mallocs[workload+" bare"]
		if !ok {
			continue // nothing was measured
		}
		above := mallocs[workload+" "+subject] - least
		verdict := fmt.Sprintf("%s: %s makes %.2f allocations more than bare, may make %.0f", workload, subject, above, most)
		fmt.Println(verdict)
		if above > most+0.1 { // of what else the process does
			faults = append(faults, errors.New(verdict))
		}
	}
	return errors.Join(faults...)
}

// judgeCost measures, reports, and finds whatever is over its bound.
func judgeCost(ctx context.Context, s settings, bounds []bound) ([]round, error) {
	for _, b := range bounds {
		s.lines = append(s.lines, b.workload+" "+b.subject)
	}
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
