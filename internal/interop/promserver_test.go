package interop_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/testnet"
)

// What MetricsHandler tells is what Prometheus's own checker takes, and its rules.
func TestPromtoolTakesThePage(t *testing.T) {
	p := newPlant(t)
	p.trouble()
	defer p.release()
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(get(t, p.app.Client(), p.app.URL+"/metrics").body)
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Empty(t, string(out))

	rules := filepath.Join(t.TempDir(), "alerts.yml")
	require.NoError(t, os.WriteFile(rules, []byte(get(t, p.app.Client(), p.app.URL+"/metrics/alerts.yml").body), 0o600))
	out, err = exec.Command("promtool", "check", "rules", rules).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A Prometheus is a real one, which scrapes a page.
type scraper struct {
	*testing.T
	url    string
	client *http.Client
}

func newScraper(t *testing.T, target, rules string) *scraper {
	t.Helper()
	where, err := url.Parse(target)
	require.NoError(t, err)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 100ms}
rule_files: [rules.yml]
scrape_configs:
  - job_name: gateway
    static_configs: [{targets: [%q]}]
`, where.Host), 0o600))
	address := freeAddress(t)
	var log bytes.Buffer
	server := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())
	s := &scraper{T: t, url: "http://" + address, client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		assert.NoError(t, server.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, server.Wait())
		if t.Failed() {
			t.Log(log.String())
		}
	})
	testnet.Settle(t, "Prometheus is ready", func() bool {
		resp, err := s.client.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
	return s
}

// A sample is one that a query has found.
type sample struct {
	Metric map[string]string
	Value  [2]any // when, and what
}

func (s *scraper) query(expr string) (found []sample) {
	s.Helper()
	resp, err := s.client.Get(s.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	require.NoError(s, err)
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	require.NoError(s, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(s, "success", answer.Status, "%s: %s", expr, answer.Error)
	return answer.Data.Result
}

// scraped waits until the page was read again, whole and in time.
func (s *scraper) scraped() {
	s.Helper()
	const reads = `sum_over_time(up{job="gateway"}[1h])`
	count := func() string {
		if found := s.query(reads); len(found) == 1 {
			return fmt.Sprint(found[0].Value[1])
		}
		return ""
	}
	for range 2 { // one may have begun before
		before := count()
		testnet.SettleWithin(s, patience, "a scrape", func() bool { return count() != before }) // the first comes after 5 s
	}
}

// Each expression of the dashboard, and each rule, finds something in a real
// Prometheus while there is what it is for.
func TestDashboardAndAlertsFindWhatTheyAreFor(t *testing.T) {
	p := newPlant(t)
	s := newScraper(t, p.app.URL, get(t, p.app.Client(), p.app.URL+"/metrics/alerts.yml").body)
	p.want(200, "/api/users/late")
	p.want(200, "/api/narrow/x")
	s.scraped()
	begun := time.Now()
	p.trouble()
	s.scraped()
	for range 3 { // a rate is of what was there before
		p.want(500, "/api/users/broken")
		p.want(503, "/api/shaky/shaky")
	}
	s.scraped()
	raised := s.raised()
	testnet.Settle(t, "slow requests", func() bool { return time.Since(begun) > 1500*time.Millisecond })
	p.release()
	s.scraped()
	assert.Equal(t, "14", fmt.Sprint(s.query(`sum(last_over_time(gateway_requests_total{gateway_service="users"}[1m]))`)[0].Value[1]))

	testnet.Settle(t, "alerts", func() bool {
		for name, is := range s.raised() {
			raised[name] = raised[name] || is
		}
		return !slices.Contains(slices.Collect(maps.Values(raised)), false)
	})
	assert.Len(t, raised, 7)

	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, p.app.Client(), p.app.URL+"/metrics/grafana.json").body), &board))
	seen := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$service", ".*").Replace(target.Expr)
			found := s.query(expr)
			assert.True(t, slices.ContainsFunc(found, func(one sample) bool { // where there was nothing it is NaN
				return one.Value[1] != "NaN"
			}), "%s: %s finds %v", panel.Title, expr, found)
			seen++
		}
	}
	assert.Greater(t, seen, 20)
}

// raised tells for each alert whether its condition holds.
func (s *scraper) raised() map[string]bool {
	s.Helper()
	resp, err := s.client.Get(s.url + "/api/v1/rules?type=alert")
	require.NoError(s, err)
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name, State, LastError string
				}
			}
		}
	}
	require.NoError(s, json.NewDecoder(resp.Body).Decode(&answer))
	raised := map[string]bool{}
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			require.Empty(s, rule.LastError, rule.Name)
			raised[rule.Name] = rule.State == "pending" || rule.State == "firing"
		}
	}
	return raised
}
