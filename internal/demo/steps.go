package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/embedgw/gateway"
)

func steps() []step {
	return []step{
		{"route", "the first segment names the service, the rest reaches it byte for byte", (*tour).takeRoute},
		{"token", "a service gets the gateway's token, in place of the client's; the others do not", (*tour).takeToken},
		{"cache", "a second answer comes from the cache", (*tour).takeCache},
		{"explain", "what would become of a request is said without sending it", (*tour).takeExplain},
		{"retry", "the client sees nothing of a failed attempt", (*tour).takeRetry},
		{"unknown service", "the gateway answers 404", (*tour).takeUnknown},
		{"timeout", fmt.Sprintf("a service that does not answer within %v is answered for with 504", timeout), (*tour).takeTimeout},
		{"slow request", fmt.Sprintf("a request that runs for longer than %v is reported while it does", slowAfter), (*tour).takeSlow},
		{"replicas", "one of two dies, and nobody notices; it comes back, and has its share again", (*tour).takeReplicas},
		{"breaker", "a service most of whose answers are failures is left alone for a while", (*tour).takeBreaker},
		{"hedging", "a replica that does not answer is not waited for", (*tour).takeHedging},
		{"events", "an event is at the client before the service sends the next", (*tour).takeEvents},
		{"websocket", "a tunnel carries bytes both ways", (*tour).takeWebSocket},
		{"health", "the gateway says how it and its services are", (*tour).takeHealth},
		{"metrics", "the gateway has counted what the tour has sent", (*tour).takeMetrics},
		{"profile", "where the time went is in the stage that it went to", (*tour).takeProfile},
		{"dashboard", "a page shows all that live", (*tour).takeDashboard},
		{"update", "a service comes and goes while the others serve on, and a faulty list changes nothing", (*tour).takeUpdate},
		{"drain", "streams are ended, requests under way are not, and nothing new is let in", (*tour).takeDrain},
	}
}

func (t *tour) takeRoute(ctx context.Context) error {
	page, err := t.get(ctx, "/")
	if err != nil {
		return err
	}
	r, err := t.get(ctx, "/api/products/a%2Fb?size=1")
	if err != nil {
		return err
	}
	if err := errors.Join(contains("the app's page", string(page.body), ownPage), r.want(http.StatusOK)); err != nil {
		return err
	}
	s, err := r.seen()
	if err != nil {
		return err
	}
	t.say("%s saw %s, below %s", s.Service, s.Target, s.Prefix)
	return errors.Join(
		is("the service", s.Service, "products"),
		is("its target", s.Target, "/a%2Fb?size=1"),
		is("its prefix", s.Prefix, "/api/products"),
	)
}

func (t *tour) takeToken(ctx context.Context) error {
	direct, err := t.get(ctx, t.app.upstreams[0].url+"/42")
	if err != nil {
		return err
	}
	if err := direct.want(http.StatusUnauthorized); err != nil {
		return err
	}
	t.bearer = "of-the-client"
	r, err := t.get(ctx, "/api/users/42")
	t.bearer = ""
	if err != nil {
		return err
	}
	if err := errors.Join(r.want(http.StatusOK), t.saw(r, authorizationMine)); err != nil {
		return err
	}
	for _, other := range []struct{ method, target string }{{http.MethodGet, "/api/products/42"}, {http.MethodPost, "/api/orders/42"}} {
		r, err := t.send(ctx, other.method, other.target, http.NoBody)
		if err != nil {
			return err
		}
		if err := t.saw(r, authorizationNone); err != nil {
			return err
		}
	}
	return nil
}

// saw is about the Authorization that a service saw.
func (t *tour) saw(r *reply, authorization string) error {
	s, err := r.seen()
	if err != nil {
		return err
	}
	t.say("%s saw Authorization: %s", s.Service, s.Authorization)
	return is("Authorization", s.Authorization, authorization)
}

func (t *tour) takeCache(ctx context.Context) error {
	var calls [2]int64
	for i, result := range []string{"; fwd=uri-miss; stored", "; hit; ttl="} {
		r, err := t.get(ctx, "/api/products/7")
		if err != nil {
			return err
		}
		if err := contains("Cache-Status", r.header.Get("Cache-Status"), result); err != nil {
			return err
		}
		s, err := r.seen()
		if err != nil {
			return err
		}
		calls[i] = s.Call
	}
	t.say("products was asked once for both")
	return is("its call", calls[1], calls[0])
}

func (t *tour) takeExplain(ctx context.Context) error {
	var calls [2]int64
	for i, expected := range []struct{ path, verdict, result string }{
		{"/api/products/7", "fresh (200)", "; hit; ttl="},
		{"/api/products/explained", "send", "; fwd=uri-miss; stored"},
	} {
		e, err := t.get(ctx, "/explain?url="+url.QueryEscape(t.app.url+expected.path))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(e.body)) {
			t.say("%s", strings.TrimRight(line, "\n"))
		}
		if err := errors.Join(e.want(http.StatusOK), contains("the explanation", string(e.body), expected.path+": "+expected.verdict+", ")); err != nil {
			return err
		}
		r, err := t.get(ctx, expected.path)
		if err != nil {
			return err
		}
		s, err := r.seen()
		if err != nil {
			return err
		}
		if err := contains("Cache-Status", r.header.Get("Cache-Status"), expected.result); err != nil {
			return err
		}
		calls[i] = s.Call
	}
	t.say("products was asked by requests alone")
	return is("its call", calls[1], calls[0]+1)
}

func (t *tour) takeRetry(ctx context.Context) error {
	r, err := t.get(ctx, "/api/orders/1")
	if err != nil {
		return err
	}
	if err := r.want(http.StatusOK); err != nil {
		return err
	}
	s, err := r.seen()
	if err != nil {
		return err
	}
	t.book.repeats += uint64(s.Call - 1)
	t.say("orders was asked %d times and failed the first", s.Call)
	return is("its call", s.Call, 2)
}

func (t *tour) takeUnknown(ctx context.Context) error {
	return t.refused(ctx, "/api/nothing/1", http.StatusNotFound, gateway.ReasonUnknownService)
}

func (t *tour) takeTimeout(ctx context.Context) error {
	return t.refused(ctx, "/api/orders/slow", http.StatusGatewayTimeout, gateway.ReasonTimeout)
}

func (t *tour) takeSlow(context.Context) error {
	for {
		select {
		case r := <-t.app.slow:
			if r.Path != "/api/orders/slow" {
				continue
			}
			t.say("%s %s of %s ran for %v, and was at %q of attempt %d, at %s", r.Method, r.Path, r.Service, r.Elapsed.Round(time.Millisecond), r.Stage, r.Attempts, r.Endpoint)
			if r.Elapsed < slowAfter || r.Elapsed >= timeout {
				return fmt.Errorf("it was reported after %v", r.Elapsed)
			}
			return errors.Join(is("its service", r.Service, "orders"), is("its stage", r.Stage, gateway.StageHeader))
		default:
			return errors.New("none is reported")
		}
	}
}

func (t *tour) refused(ctx context.Context, target string, status int, reason gateway.Reason) error {
	r, err := t.get(ctx, target)
	if err != nil {
		return err
	}
	t.say("the gateway says %q", r.reason())
	return errors.Join(r.want(status), is("the reason", r.reason(), string(reason)))
}

func (t *tour) takeWebSocket(ctx context.Context) error {
	ws, err := t.openEcho(ctx)
	if err != nil {
		return err
	}
	defer ws.conn.Close()
	t.say("echo: %q", greeting)
	for _, exchange := range []struct {
		name          string
		asks, answers byte
	}{{"ping", opPing, opPong}, {"close", opClose, opClose}} {
		f, err := ws.ask(exchange.asks, "\x03\xe8") // 1000, an orderly end; to a ping it is any data
		if err != nil {
			return fmt.Errorf("%s: %w", exchange.name, err)
		}
		if err := is(exchange.name+"'s answer", f.opcode(), exchange.answers); err != nil {
			return err
		}
		t.say("%s: answered", exchange.name)
	}
	return ws.ended()
}

const greeting = "hello through the gateway"

// openEcho opens a WebSocket and sees that it works.
func (t *tour) openEcho(ctx context.Context) (*webSocket, error) {
	ws, err := dialWebSocket(ctx, t.app.listener.Addr().String(), "/api/orders/echo")
	if err != nil {
		return nil, err
	}
	f, err := ws.ask(opText, greeting)
	if err == nil {
		err = is("the echo", string(f.payload), greeting)
	}
	if err != nil {
		return nil, errors.Join(err, ws.conn.Close())
	}
	return ws, nil
}

func (t *tour) takeHealth(ctx context.Context) error {
	type report struct {
		Status string `json:"status"`
		Checks map[string][]struct {
			Replica string `json:"componentId"`
			Status  string `json:"status"`
		} `json:"checks"`
	}
	for _, path := range []string{"/health/livez", "/health/readyz", "/health?verbose"} {
		r, err := t.get(ctx, path)
		if err != nil {
			return err
		}
		if err := r.want(http.StatusOK); err != nil {
			return err
		}
		var got report
		if err := json.Unmarshal(r.body, &got); err != nil {
			return err
		}
		if err := is(path, got.Status, "pass"); err != nil {
			return err
		}
		if path != "/health?verbose" {
			continue
		}
		for _, u := range t.app.upstreams {
			checks := got.Checks[u.name+":responseTime"]
			if len(checks) == 0 {
				return fmt.Errorf("the report does not know %s", u.name)
			}
			for _, check := range checks {
				t.say("%s at %s: %s", u.name, check.Replica, check.Status)
				if err := is(u.name, check.Status, "pass"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (t *tour) takeMetrics(ctx context.Context) error {
	text, err := t.get(ctx, "/metrics") // as Prometheus does
	if err != nil {
		return err
	}
	line := fmt.Sprintf("gateway_retries_total{gateway_retry_cause=%q,gateway_service=%q} %d", "503", "orders", t.book.repeats)
	if !strings.Contains(string(text.body), "\n"+line+"\n") {
		return fmt.Errorf("the text is without %q", line)
	}
	t.say("%s", line)
	r, err := t.getJSON(ctx, "/metrics")
	if err != nil {
		return err
	}
	if err := r.want(http.StatusOK); err != nil {
		return err
	}
	var got gateway.Stats
	if err := json.Unmarshal(r.body, &got); err != nil {
		return err
	}
	var wrong []error
	for _, service := range []string{"users", "products"} {
		l := got.Services[service].Latency
		t.say("%s: %d requests, p50 %v, p99 %v", service, got.Services[service].Requests, round(l.P50), round(l.P99))
		wrong = append(wrong, is(service+"' requests", got.Services[service].Requests, t.book.asked[service]))
	}
	t.say("%d hits, %d repeats, %d hedges, errors %v", got.CacheHits, got.Retries, got.Hedges, got.Errors)
	wrong = append(wrong,
		is("the number of hits", got.CacheHits, t.book.hits),
		is("the number of orders' repeats", got.Services["orders"].Retries, t.book.repeats),
	)
	for _, reason := range []gateway.Reason{gateway.ReasonUnknownService, gateway.ReasonTimeout, gateway.ReasonBreakerOpen} {
		wrong = append(wrong, is("the number of "+string(reason), got.Errors[reason], t.book.refused[string(reason)]))
	}
	return errors.Join(wrong...)
}

func (t *tour) takeDashboard(ctx context.Context) error {
	page, err := t.get(ctx, "/dashboard/")
	if err != nil {
		return err
	}
	if err := page.want(http.StatusOK); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := t.do(ctx, http.MethodGet, "/dashboard/events", http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var got struct{ Services []struct{ Name string } }
		if err := json.Unmarshal([]byte(data), &got); err != nil {
			return err
		}
		t.say("%s/dashboard/ shows %d services; its first event has %d bytes", t.app.url, len(got.Services), len(data))
		return is("the number of services", len(got.Services), len(t.app.upstreams))
	}
	return fmt.Errorf("there is no event: %w", lines.Err())
}

func (t *tour) takeProfile(context.Context) error {
	s := t.app.gateway.StatsOver(gateway.LastMinute)
	orders := s.Services["orders"]
	for line := range strings.Lines(orders.String()) {
		t.say("%s", strings.TrimRight(line, "\n"))
	}
	at := map[gateway.Stage]gateway.StageStats{}
	for _, row := range orders.Stages {
		at[row.Stage] = row
	}
	var wrong error
	if at[gateway.StageHeader].Max < timeout*9/10 { // of the request that it did not answer
		wrong = fmt.Errorf("the longest wait for orders' header is %v", at[gateway.StageHeader].Max)
	}
	return errors.Join(wrong,
		is("the number of those that were repeated after a wait", at[gateway.StageBackoff].Count, t.book.repeats),
	)
}

func (t *tour) takeUpdate(ctx context.Context) error {
	before := t.app.gateway.Stats()
	products := t.app.service("products")
	catalog := gateway.WithService("catalog", products.url)
	there := func() bool {
		r, err := t.get(ctx, "/api/catalog/7")
		if err != nil {
			return false
		}
		s, err := r.seen()
		return err == nil && s.Service == products.name
	}
	var wrong []error
	for _, change := range []struct {
		what  string
		opts  []gateway.Option
		fails bool
		there bool
	}{
		{"with a catalog", []gateway.Option{catalog}, false, true},
		{"with a fault", []gateway.Option{gateway.WithTimeout(-time.Second)}, true, true},
		{"without it", nil, false, false},
	} {
		err := t.app.update(change.opts...)
		if t.say("%s: %v", change.what, err); (err != nil) != change.fails {
			wrong = append(wrong, fmt.Errorf("the update %s: %w", change.what, cmp.Or(err, errNoFault)))
		}
		wrong = append(wrong, is("that the catalog is there "+change.what, there(), change.there))
	}
	after := t.app.gateway.Stats()
	t.say("%d requests before, %d after; of users %d, as before", before.Requests, after.Requests, after.Services["users"].Requests)
	return errors.Join(append(wrong, is("the number of users' requests", after.Services["users"].Requests, before.Services["users"].Requests))...)
}

var errNoFault = errors.New("it was accepted")

func round(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
