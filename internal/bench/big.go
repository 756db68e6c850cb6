package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/tabwriter"
	"time"
)

const bigHeap = 64 << 20 // that the process may have in use meanwhile

// checkBig sends a GiB up and down, with its length said before and without,
// and watches the heap of the process between. -n: other than 1024 MiB.
func checkBig(ctx context.Context, s settings) error {
	bytes := int64(s.count(1024)) << 20
	r, err := newRig(ctx, candidateConfig{Kind: "gateway"}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	fmt.Printf("%s\n\n%d MiB, the heap sampled every 50 ms:\n", machine(), bytes>>20)
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\ttook\theap at most\tmay be\tRSS after\t")
	var faults []error
	for _, b := range []struct {
		name string
		move func(context.Context, int64) error
	}{
		{"upload", func(ctx context.Context, n int64) error { return r.upload(ctx, n, n) }},
		{"chunked upload", func(ctx context.Context, n int64) error { return r.upload(ctx, n, -1) }},
		{"download", func(ctx context.Context, n int64) error { return r.download(ctx, "/stream", n) }},
		{"chunked download", func(ctx context.Context, n int64) error { return r.download(ctx, "/chunked", n) }},
	} {
		if _, err := r.calm(); err != nil {
			return err
		}
		if err := r.candidate.tell("watch", 50*time.Millisecond); err != nil {
			return err
		}
		began := time.Now()
		if err := b.move(ctx, bytes); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", b.name, err))
		}
		took := time.Since(began)
		most, err := ask[memory](r.candidate, "watched", nothing{})
		if err != nil {
			return err
		}
		now, err := r.usage()
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%.1fs\t%.1fMiB\t%dMiB\t%.1fMiB\t\n", b.name, took.Seconds(), mib(most.Spans), bigHeap>>20, mib(now.RSS))
		if most.Spans >= bigHeap {
			faults = append(faults, fmt.Errorf("%s: the heap grew to %.1f MiB, may be %d", b.name, mib(most.Spans), bigHeap>>20))
		}
	}
	return errors.Join(append(faults, t.Flush())...)
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// upload sends n bytes of which length says so; the upstream answers with what
// it has got.
func (r *rig) upload(ctx context.Context, n, length int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.addr+"/api/bench/sink", newPattern(n))
	if err != nil {
		return err
	}
	req.ContentLength = length
	resp, err := alone().RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	sum := newChecksum()
	if _, err := io.Copy(sum, newPattern(n)); err != nil {
		return err
	}
	if want := fmt.Sprintf("%d %s\n", n, sum); string(got) != want || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the upstream got %q (%s), want %q", got, resp.Status, want)
	}
	return nil
}

func (r *rig) download(ctx context.Context, path string, n int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/api/bench%s/%d", r.addr, path, n), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := alone().RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, want := newChecksum(), newChecksum()
	read, err := io.CopyBuffer(got, onlyReader{resp.Body}, make([]byte, 256<<10))
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", read, err)
	}
	if _, err := io.Copy(want, newPattern(n)); err != nil {
		return err
	}
	if read != n || got.String() != want.String() {
		return fmt.Errorf("%d bytes arrived with the checksum %s, want %d with %s", read, got, n, want)
	}
	return nil
}

// onlyReader hides from io.Copy what else a reader can do.
type onlyReader struct{ io.Reader }

// alone returns a transport for one request on one connection.
func alone() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DisableCompression: true, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10}
}
