package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A median is that of several rounds; Spread is half of their interquartile range.
type median struct{ Value, Spread float64 }

func medianOf[T any](rounds []T, value func(T) float64) median {
	sorted := make([]float64, 0, len(rounds))
	for _, r := range rounds {
		sorted = append(sorted, value(r))
	}
	slices.Sort(sorted)
	return median{quantile(sorted, 0.5), (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 2}
}

// quantile interpolates between the two values around it.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (sorted[above]-sorted[below])*(at-float64(below))
}

// percent is the spread as a part of the value.
func (m median) percent() string {
	if m.Value == 0 {
		return "±0%"
	}
	return fmt.Sprintf("±%.0f%%", 100*m.Spread/m.Value)
}

type summary struct {
	Workload, Subject                             string
	Rounds                                        int
	CPU, PerSecond, P50, P99, Mallocs, Bytes, RSS median // times in nanoseconds
}

func summarise(rounds []round) []summary {
	var all []summary
	for _, of := range grouped(rounds) {
		all = append(all, summary{
			Workload: of[0].Workload, Subject: of[0].Subject, Rounds: len(of),
			CPU:       medianOf(of, func(r round) float64 { return float64(r.CPU) }),
			PerSecond: medianOf(of, func(r round) float64 { return r.PerSecond }),
			P50:       medianOf(of, func(r round) float64 { return float64(r.P50) }),
			P99:       medianOf(of, func(r round) float64 { return float64(r.P99) }),
			Mallocs:   medianOf(of, func(r round) float64 { return r.Mallocs }),
			Bytes:     medianOf(of, func(r round) float64 { return r.Bytes }),
			RSS:       medianOf(of, func(r round) float64 { return float64(r.RSS) }),
		})
	}
	return all
}

// A ratio compares what two subjects needed in the same pair of rounds.
type ratio struct {
	Workload, Subject, Against string
	CPU, P50, P99              median
}

func ratios(rounds []round) []ratio {
	type place struct {
		workload, subject string
		pair              int
	}
	at := map[place]round{}
	for _, r := range rounds {
		at[place{r.Workload, r.Subject, r.Pair}] = r
	}
	var all []ratio
	for _, of := range grouped(rounds) {
		against := of[0].Against
		if against == "" {
			continue
		}
		to := func(cost func(round) time.Duration) median {
			return medianOf(of, func(r round) float64 {
				return float64(cost(r)) / float64(cost(at[place{r.Workload, against, r.Pair}]))
			})
		}
		all = append(all, ratio{
			Workload: of[0].Workload, Subject: of[0].Subject, Against: against,
			CPU: to(func(r round) time.Duration { return r.CPU }),
			P50: to(func(r round) time.Duration { return r.P50 }),
			P99: to(func(r round) time.Duration { return r.P99 }),
		})
	}
	return all
}

// grouped returns the rounds of each subject, in the order of the workloads.
func grouped(rounds []round) [][]round {
	var groups [][]round
	for _, w := range workloads() {
		for _, s := range w.subjects {
			var of []round
			for _, r := range rounds {
				if r.Workload == w.String() && r.Subject == s.name {
					of = append(of, r)
				}
			}
			if len(of) > 0 {
				groups = append(groups, of)
			}
		}
	}
	return groups
}

func report(w io.Writer, rounds []round) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\n\n", machine())
	fmt.Fprintln(t, "workload\tcandidate\tCPU/request\t\trequests/s\t\tp50\tp99\t\tallocs\tbytes\tRSS\t")
	for _, s := range summarise(rounds) {
		fmt.Fprintf(t, "%s\t%s\t%.1fµs\t%s\t%.0f\t%s\t%.0fµs\t%.0fµs\t%s\t%.1f\t%.0f\t%.0fMiB\t\n", s.Workload, s.Subject,
			s.CPU.Value/1e3, s.CPU.percent(), s.PerSecond.Value, s.PerSecond.percent(),
			s.P50.Value/1e3, s.P99.Value/1e3, s.P99.percent(), s.Mallocs.Value, s.Bytes.Value, s.RSS.Value/(1<<20))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "\nratio\t\tCPU/request\t\tp50\t\tp99\t\t")
	for _, r := range ratios(rounds) {
		fmt.Fprintf(t, "%s\t%s/%s\t%.2f\t±%.2f\t%.2f\t±%.2f\t%.2f\t±%.2f\t\n", r.Workload, r.Subject, r.Against,
			r.CPU.Value, r.CPU.Spread, r.P50.Value, r.P50.Spread, r.P99.Value, r.P99.Spread)
	}
	return t.Flush()
}
