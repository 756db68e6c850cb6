// Command demo is an ordinary net/http app with the gateway in it, and with the
// services behind that, which it starts itself:
//
//	go run ./internal/demo          serves until Ctrl-C
//	go run ./internal/demo -trace   prints the spans too
//	go run ./internal/demo -tour    sends the traffic itself, and judges what comes back
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	defaultAddr  = "127.0.0.1:8080"
	freeAddr     = "127.0.0.1:0"
	shutdownTime = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the program, from its arguments to its end, which ctx brings.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "", "listen on this `address` (default "+defaultAddr+", or a free port where that is taken)")
	tour := flags.Bool("tour", false, "send traffic through the gateway, print what happens, and fail if it is not as promised")
	trace := flags.Bool("trace", false, "print the spans as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var s settings
	if *trace {
		exporter, err := stdouttrace.New(stdouttrace.WithWriter(stdout))
		if err != nil {
			return err
		}
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		defer func() { err = errors.Join(err, provider.Shutdown(context.WithoutCancel(ctx))) }()
		s.tracer = provider
	}
	if *tour {
		return runTour(ctx, s, stdout)
	}
	s.logger = slog.New(slog.NewTextHandler(stderr, nil))
	listener, err := listen(cmp.Or(*addr, defaultAddr), *addr == "")
	if err != nil {
		return err
	}
	return serve(ctx, listener, s, stdout)
}

// listen takes addr or, where that is taken and a free port will do, one.
func listen(addr string, orFree bool) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil && orFree {
		return net.Listen("tcp", freeAddr)
	}
	return listener, err
}

// serve runs the app until ctx ends, and drains it.
func serve(ctx context.Context, listener net.Listener, s settings, stdout io.Writer) error {
	a, err := newApp(listener, s)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer a.close()
	a.start()
	introduce(stdout, a)
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "Draining …")
	case err := <-a.served:
		return err
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := a.shutdown(ending); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "Done.")
	return nil
}

// introduce says what there is, and what to try.
func introduce(w io.Writer, a *app) {
	fmt.Fprintf(w, "The app:      %s/\n", a.url)
	fmt.Fprintf(w, "The dashboard: %s/dashboard/\n", a.url)
	fmt.Fprintf(w, "The gateway:  %s/api/{service}/{path}\n", a.url)
	for _, u := range a.upstreams {
		fmt.Fprintf(w, "    %-10s%-24s %s\n", u.name, u.url, u.about)
		for _, r := range u.others {
			fmt.Fprintf(w, "    %-10s%-24s\n", "", r.url)
		}
	}
	fmt.Fprint(w, "\nTry:\n")
	for _, try := range []struct{ curl, what string }{
		{"curl -i " + a.url + "/api/users/42", "the gateway adds the token …"},
		{"curl -i " + a.upstreams[0].url + "/42", "… without which the service says 401"},
		{"curl -i " + a.url + "/api/products/7", "twice: Cache-Status says miss, then hit"},
		{"curl -i " + a.url + "/api/orders/1", "the service fails every other time; the gateway asks again"},
		{"curl -i " + a.url + "/api/orders/slow", fmt.Sprintf("504 after %v", timeout)},
		{"curl -i " + a.url + "/api/prices/1", "twice: the one replica, then the other"},
		{"curl -i " + a.url + "/api/prices/late", fmt.Sprintf("who does not answer within %v is not alone any more", hedgeDelay)},
		{"curl -i " + a.url + "/api/stock/broken", fmt.Sprintf("%d times: then the circuit breaker says 503", breakerVolume)},
		{"curl -i " + a.url + "/api/nothing", "404"},
		{"curl -N " + a.url + "/api/orders/events", "an event stream, until Ctrl-C here ends it"},
		{"curl -s " + a.url + "/explain?url=" + a.url + "/api/products/7", "what would become of it, and why"},
		{"curl -s " + a.url + "/health", "how all are"},
		{"curl -s " + a.url + "/metrics", "what the gateway has done"},
	} {
		fmt.Fprintf(w, "    %-52s # %s\n", try.curl, try.what)
	}
	fmt.Fprint(w, "\nCtrl-C drains and ends.\n\n")
}
