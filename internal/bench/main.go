// Command bench measures what a request through the gateway costs, beside a
// bare net/http handler that writes the same bytes and a tuned
// httputil.ReverseProxy.
//
// The upstream, the candidate and the load run as processes of their own, so
// that the CPU time, the allocations and the memory it prints are the
// candidate's alone. A candidate is a fresh process in each round, and the
// rounds of the candidates of a workload are interleaved: what disturbs the
// machine disturbs all of them. It prints medians over the rounds, each with
// half its interquartile range, and medians of the ratios within a round.
//
//	go run .                              every workload, 11 rounds
//	go run . -only "1KiB GET" -pairs 21   some of them, more often
//	go run . -check cost                  a long check; an unknown name lists them
//	go run . -check soak -t 1h            longer than usual
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// lifetime bounds every process of a measurement, whatever happened to the others.
const lifetime = 2 * time.Hour

func main() {
	var (
		s     settings
		role  = flag.String("role", "", "what this process is: set by the bench itself")
		check = flag.String("check", "", "run this long `check` instead")
		asRaw = flag.Bool("json", false, "print each round and the medians as JSON")
	)
	flag.IntVar(&s.pairs, "pairs", 11, "rounds of each candidate")
	flag.DurationVar(&s.duration, "t", 0, "measured time of a round (usually 1s), or the `time` of a check that lasts")
	flag.IntVar(&s.requests, "n", 0, "measured requests of a round, instead of a time, or the `number` of what a check does often")
	flag.DurationVar(&s.warm, "warm", 300*time.Millisecond, "unmeasured time before it")
	flag.StringVar(&s.only, "only", "", "only workloads and candidates whose line contains this `text`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, lifetime)
	defer cancel()

	var err error
	switch {
	case *role != "":
		err = serveRole(*role)
	case *check != "":
		err = runCheck(ctx, *check, s)
	default:
		err = bench(ctx, s, *asRaw)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings, asRaw bool) error {
	rounds, err := measure(ctx, s)
	if err != nil {
		return err
	}
	if asRaw {
		return json.NewEncoder(os.Stdout).Encode(map[string]any{
			"machine": machine(), "rounds": rounds, "medians": summarise(rounds), "ratios": ratios(rounds),
		})
	}
	return report(os.Stdout, rounds)
}
