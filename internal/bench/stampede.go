package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"text/tabwriter"
	"time"
)

const (
	stampedeSize  = 8 << 10
	stampedeAfter = 200 * time.Millisecond // the origin answers
	stampedeConns = 8000                   // to the origin: with those of the clients, what a process may have open
	stampedeTail  = 1.3                    // of the p99 to that of a bare handler that takes as long
	stampedeWaves = 3
	separateCost  = 1.5 // of answers that may not be shared, to that of as many for different keys
)

// checkStampede has many clients ask at once for what nobody has yet, for what
// may not be shared, and for what comes stale meanwhile. -n: other than 10,000
// clients.
func checkStampede(ctx context.Context, s settings) error {
	r, err := newRig(ctx, candidateConfig{
		Kind: "gateway", Conns: stampedeConns, Acquire: 30 * time.Second, Timeout: time.Minute,
	}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	fmt.Printf("%s\n\n", machine())
	st := &stampedeCheck{r, s.count(10_000)}
	var faults []error
	for _, part := range []struct {
		what string
		do   func() error
	}{
		{"a cold key", func() error { return st.cold(ctx) }},
		{"what may not be shared", st.separate},
		{"what comes stale under load", func() error { return st.stale(s) }},
	} {
		if err := part.do(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", part.what, err))
		}
	}
	return errors.Join(faults...)
}

type stampedeCheck struct {
	*rig
	clients int
}

// wave is a stampede of a gateway and one of a bare handler after it.
type wave struct{ gateway, bare stampedeResult }

// cold compares waves for a fresh key each with those of a bare handler.
func (st *stampedeCheck) cold(ctx context.Context) error {
	config := candidateConfig{Kind: "bare", BodySize: stampedeSize, After: stampedeAfter, Patterned: true}
	var err error
	path := storedPath("max-age=3600", stampedeAfter)
	for range 2 { // the second is a hit
		if config.Header, err = headerOf(ctx, st.addr, path, answered{stampedeSize, false}); err != nil {
			return err
		}
	}
	bareCandidate, bareAddr, err := startWith(ctx, "candidate", config)
	if err != nil {
		return err
	}
	defer bareCandidate.stop()
	var waves []wave
	var faults []error
	for i := range stampedeWaves {
		var w wave
		if w.gateway, err = st.send(st.addr, path, int64(i+1), false); err != nil {
			return err
		}
		if w.gateway.Upstream != 1 {
			faults = append(faults, fmt.Errorf("%d requests went upstream, want 1", w.gateway.Upstream))
		}
		if w.bare, err = st.send(bareAddr, path, int64(i+1), false); err != nil {
			return err
		}
		waves = append(waves, w)
	}
	return errors.Join(append(faults, judgeWaves(st.clients, waves))...)
}

func judgeWaves(clients int, waves []wave) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%d at once, a key nobody has\tp50\tp99\tmax\tupstream\t\n", clients)
	for _, w := range waves {
		for _, row := range []struct {
			name string
			of   stampedeResult
		}{{"gateway", w.gateway}, {"bare", w.bare}} {
			fmt.Fprintf(t, "%s\t%dms\t%dms\t%dms\t%d\t\n", row.name,
				row.of.P50.Milliseconds(), row.of.P99.Milliseconds(), row.of.Max.Milliseconds(), row.of.Upstream)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r := medianOf(waves, func(w wave) float64 { return float64(w.gateway.P99) / float64(w.bare.P99) })
	verdict := fmt.Sprintf("p99 of the gateway is %.2f ±%.2f of bare's, may be %.2f", r.Value, r.Spread, stampedeTail)
	fmt.Println(verdict)
	if !(r.Value <= stampedeTail) {
		return errors.New(verdict)
	}
	return nil
}

// separate asks for an answer that turns out to be for one client only.
func (st *stampedeCheck) separate() error {
	path := storedPath("no-store", stampedeAfter)
	apart, err := st.send(st.addr, path, 0, true)
	if err != nil {
		return fmt.Errorf("a key each: %w", err)
	}
	together, err := st.send(st.addr, path, -1, false)
	if err != nil {
		return err
	}
	most := 2*stampedeAfter + time.Duration(separateCost*float64(apart.Elapsed))
	verdict := fmt.Sprintf("%d at once, an answer that may not be shared: all of them after %dms by %d requests upstream, may take %dms; of a key each after %dms",
		st.clients, together.Elapsed.Milliseconds(), together.Upstream, most.Milliseconds(), apart.Elapsed.Milliseconds())
	fmt.Println(verdict)
	if together.Elapsed > most || together.Upstream != int64(st.clients) {
		return errors.New(verdict)
	}
	return nil
}

const (
	staleKeys  = 200
	staleRate  = 2000 // requests a second
	staleAfter = 15 * time.Millisecond
	staleTail  = 50 * time.Millisecond
)

// stale has keys come stale, again and again, while they are asked for. How long
// hits take whose keys stay fresh tells what is the machine's.
func (st *stampedeCheck) stale(s settings) error {
	lasting := s.lasting(5 * time.Second)
	fresh, err := st.hits("max-age=3600", lasting)
	if err != nil {
		return err
	}
	stale, err := st.hits("max-age=1, stale-while-revalidate=60", lasting)
	if err != nil {
		return err
	}
	seconds := int64(stale.Elapsed/time.Second) + 1 // that are begun
	fmt.Printf("%d keys at %d a second: p50 %v, p99 %v, max %v\n", staleKeys, staleRate, fresh.P50, fresh.P99, fresh.Max)
	fmt.Printf("stale after 1s: p50 %v, p99 %v, may be %v, max %v; %d keys were validated %d times, one %d times at the most, may be %d, and %d at once, may be 1\n",
		stale.P50, stale.P99, staleTail, stale.Max, stale.Keys, stale.Requests, stale.Most, seconds, stale.AtOnce)
	switch {
	case stale.AtOnce > 1:
		return fmt.Errorf("%d validations of a key at once", stale.AtOnce)
	case stale.Most > seconds:
		return fmt.Errorf("%d validations of a key in %v", stale.Most, stale.Elapsed)
	case stale.Keys != staleKeys || stale.Requests < staleKeys*seconds/4:
		return fmt.Errorf("%d validations of %d keys in %v: they hardly came stale", stale.Requests, stale.Keys, lasting)
	case stale.P99 > staleTail:
		return fmt.Errorf("p99 is %v, may be %v", stale.P99, staleTail)
	}
	return nil
}

// hitsResult is how long hits took, and what went upstream meanwhile.
type hitsResult struct {
	quantiles
	keyCounts
	Elapsed time.Duration
}

// hits stores keys and then asks for them.
func (st *stampedeCheck) hits(control string, lasting time.Duration) (result hitsResult, err error) {
	r := request{Method: http.MethodGet, Path: "/api/bench" + storedPath(control, staleAfter), WantSize: stampedeSize}
	if _, err := ask[loadResult](st.load, "run", loadConfig{Addr: st.addr, InFlight: 64, Requests: staleKeys, request: r}); err != nil {
		return result, err
	}
	if _, err := ask[keyCounts](st.origin, "keyed", nothing{}); err != nil { // it begins anew
		return result, err
	}
	r.Keys = staleKeys
	began := time.Now()
	got, err := ask[paceResult](st.load, "pace", paceConfig{Addr: st.addr, Rate: staleRate, Duration: lasting, InFlight: 256, Mix: []request{r}})
	if err = errors.Join(err, got.flawless()); err != nil {
		return result, err
	}
	result.quantiles, result.Elapsed = got.Good, time.Since(began)
	result.keyCounts, err = ask[keyCounts](st.origin, "keyed", nothing{})
	return result, err
}

func storedPath(control string, after time.Duration) string {
	return fmt.Sprintf("/stored/%d?%s", stampedeSize, url.Values{"control": {control}, "after": {after.String()}}.Encode())
}

// send has all clients ask at once, and counts what of it went upstream.
func (st *stampedeCheck) send(addr, path string, key int64, apart bool) (stampedeResult, error) {
	before, err := st.counts()
	if err != nil {
		return stampedeResult{}, err
	}
	content := newChecksum()
	if _, err := io.Copy(content, newPattern(stampedeSize)); err != nil {
		return stampedeResult{}, err
	}
	result, err := ask[stampedeResult](st.load, "stampede", stampedeConfig{
		Addr: addr, Clients: st.clients, Apart: apart, Sum: content.String(),
		request: request{Method: http.MethodGet, Path: "/api/bench" + path, WantSize: stampedeSize, First: key},
	})
	if err != nil {
		return result, err
	}
	after, err := st.counts()
	result.Upstream = after.Requests - before.Requests
	return result, err
}

type stampedeConfig struct {
	Addr    string
	Clients int
	Apart   bool   // a key each, First and on; else all of them First
	Sum     string // of each body
	request
}

type stampedeResult struct {
	quantiles               // from when a request is sent to the last byte of its answer
	Elapsed   time.Duration // until all of them were answered
	Upstream  int64
}

// stampede connects all clients, and then has them send at once. Each must get
// the whole answer.
func stampede(c stampedeConfig) (result stampedeResult, err error) {
	conns := make([]*net.TCPConn, c.Clients)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.SetLinger(0) // or the system would run out of ports
				_ = conn.Close()
			}
		}
	}()
	if err := each(c.Clients, func(i int) (err error) {
		conns[i], err = dial(c.Addr)
		return err
	}); err != nil {
		return result, err
	}
	var (
		all  sync.WaitGroup
		now  = make(chan struct{})
		took = make([]time.Duration, c.Clients)
		errs = make([]error, c.Clients)
	)
	for i, conn := range conns {
		key := c.First
		if c.Apart {
			key = c.key(int64(i))
		}
		head, buf := c.appendHead(nil, key), make([]byte, c.WantSize+4<<10)
		all.Go(func() {
			<-now
			took[i], errs[i] = c.ask(conn, head, buf)
		})
	}
	began := time.Now()
	close(now)
	all.Wait()
	result.Elapsed = time.Since(began)
	for i, err := range errs {
		if err != nil { // one of them tells enough
			return result, fmt.Errorf("client %d after %v: %w", i, result.Elapsed, err)
		}
	}
	result.quantiles = quantilesOf(took)
	return result, nil
}

// ask sends a request, and returns how long its answer took, which must be the
// one that is wanted.
func (c *stampedeConfig) ask(conn *net.TCPConn, head, buf []byte) (time.Duration, error) {
	began := time.Now()
	if err := conn.SetDeadline(began.Add(peerPatience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(head); err != nil {
		return 0, err
	}
	n, end := 0, 0
	for end == 0 || n < end+c.WantSize {
		more, err := conn.Read(buf[n:])
		if err != nil {
			return 0, fmt.Errorf("after %d bytes: %w", n, err)
		}
		if n += more; end == 0 {
			if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 {
				end = i + 4
			}
		}
		if end > 0 && statusOf(buf[:end]) != http.StatusOK {
			return 0, fmt.Errorf("answered %q", buf[:n])
		}
	}
	took := time.Since(began)
	sum := newChecksum()
	_, _ = sum.Write(buf[end:n])
	if sum.String() != c.Sum {
		return took, fmt.Errorf("%q and a body whose checksum is %s, want %s", buf[:end], sum, c.Sum)
	}
	return took, nil
}
