package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const pageKiB = 64 // for an open page of the dashboard, net/http's own part included

// checkPages keeps a thousand pages of the dashboard open, while there is traffic,
// and measures what each holds. -n: other than 1000.
func checkPages(ctx context.Context, s settings) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Conns: 100, Dashboard: true}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	n := s.count(1000)
	if err := r.sane(ctx); err != nil {
		return err
	}
	before, err := r.calm()
	if err != nil {
		return err
	}
	var told, bytes atomic.Int64
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range n {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, "GET /dashboard/events HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			return err
		}
		go func() { // until it is closed
			for lines := bufio.NewReader(c); ; {
				line, err := lines.ReadSlice('\n')
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
				bytes.Add(int64(len(line)))
				if len(line) > 5 && string(line[:5]) == "data:" {
					told.Add(1)
				}
			}
		}()
	}
	events := int64(5 * n)
	began := time.Now()
	err = until(ctx, time.Minute, "five events for each page", func() (bool, error) { return told.Load() >= events, r.sane(ctx) })
	if err != nil {
		return fmt.Errorf("%w: %d of %d", err, told.Load(), events)
	}
	took := time.Since(began)
	after, err := ask[usage](r.candidate, "settle", nothing{})
	if err != nil {
		return err
	}
	each := shareOf(before, after, n)
	fmt.Printf("%s\n\n%d pages, %d events of %d bytes in %.1fs; each page takes %.1f KiB, may take %d; %.2f goroutines\n",
		machine(), n, told.Load(), bytes.Load()/max(told.Load(), 1), took.Seconds(), each.KiB, pageKiB, each.Goroutines)
	fmt.Printf("processor time: %.2fs, of all pages together\n", (after.CPU - before.CPU).Seconds())
	var faults []error
	if each.KiB > pageKiB {
		faults = append(faults, fmt.Errorf("a page takes %.1f KiB, may take %d", each.KiB, pageKiB))
	}
	for _, c := range conns {
		_ = c.Close()
	}
	faults = append(faults, until(ctx, 10*time.Second, "goroutines and descriptors as before", func() (bool, error) {
		now, err := r.usage()
		return now.Goroutines <= before.Goroutines+leftOver && now.Descriptors <= before.Descriptors+leftOver, err
	}))
	return errors.Join(faults...)
}
