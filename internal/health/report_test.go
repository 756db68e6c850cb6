package health

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	now   = time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	well  = Replica{Address: "a:80", Health: "healthy", Fit: true, Answer: Answer{At: now, Took: 1234567, Code: 200}, Pool: &Pool{Open: 2, Idle: 1, InUse: 1}}
	dead  = Replica{Address: "b:80", Health: "healthy", Fit: true, Answer: Answer{At: now, Problem: None}}
	slow  = Replica{Address: "b:80", Health: "healthy", Fit: true, Answer: Answer{At: now, Took: time.Second, Problem: Late}}
	ill   = Replica{Address: "b:80", Health: "healthy", Fit: true, Answer: Answer{At: now, Took: 2e6, Code: 503, Problem: Troubled}}
	out   = Replica{Address: "c:80", Health: "ejected", Answer: Answer{At: now, Took: 3e6, Code: 200}}
	trial = Replica{Address: "c:80", Health: "ejected", Fit: true, Answer: Answer{At: now, Took: 3e6, Code: 200}}
	sick  = Replica{Address: "d:80", Health: "unhealthy", Answer: Answer{At: now, Took: 4e6, Code: 200}}
)

func TestStatusOfAService(t *testing.T) {
	for _, c := range []struct {
		name     string
		service  Service
		broken   bool
		status   string // where it is not required
		required string
		output   string
	}{
		{"well", Service{Replicas: []Replica{well, well}}, false, Pass, Pass, ""},
		{"well, with a breaker", Service{Breaker: "closed", Replicas: []Replica{well}}, false, Pass, Pass, ""},
		{"one does not answer", Service{Replicas: []Replica{well, dead}}, false, Warn, Warn, "1 of 2 replicas cannot be used"},
		{"one is out", Service{Replicas: []Replica{out, well, sick}}, false, Warn, Warn, "2 of 3 replicas cannot be used"},
		{"one waits for its trial", Service{Replicas: []Replica{trial, well}}, false, Warn, Warn, "1 of 2 replicas wait for a trial"},
		{"all wait for their trials", Service{Replicas: []Replica{trial}}, false, Warn, Warn, "1 of 1 replicas wait for a trial"},
		{"none answers", Service{Replicas: []Replica{dead, slow}}, true, Warn, Fail, "2 of 2 replicas cannot be used"},
		{"the only one does not answer", Service{Replicas: []Replica{slow}}, true, Warn, Fail, Late},
		{"the only one is troubled", Service{Replicas: []Replica{ill}}, true, Warn, Fail, "server error: status 503"},
		{"each either is out or does not answer", Service{Replicas: []Replica{dead, out}}, true, Warn, Fail, "2 of 2 replicas cannot be used"},
		{"the only one is unhealthy", Service{Replicas: []Replica{sick}}, true, Warn, Fail, "1 of 1 replicas cannot be used"},
		{"there is none", Service{}, true, Warn, Fail, ""},
		{"the breaker refuses", Service{Breaker: "open", Refusing: true, Replicas: []Replica{well}}, true, Warn, Fail, "the breaker is open"},
		{"the breaker would let one pass", Service{Breaker: "open", Replicas: []Replica{well}}, false, Warn, Warn, "the breaker waits for a trial"},
		{"the breaker is on trial", Service{Breaker: "half_open", Replicas: []Replica{well}}, false, Warn, Warn, "the breaker waits for a trial"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.service
			s.Name = "s"
			assert.Equal(t, c.broken, s.Broken())
			for _, want := range []string{c.status, c.required} {
				assert.Equal(t, want, s.Status())
				short, verbose := New([]Service{s}, false, now), New([]Service{s}, true, now)
				assert.Equal(t, want, short.Status)
				assert.Equal(t, c.output, short.Checks["s:responseTime"][0].Output)
				assert.Equal(t, want, verbose.Status)
				worst := Pass
				for _, checks := range verbose.Checks {
					for _, check := range checks {
						worst = worse(worst, check.Status)
					}
				}
				if len(s.Replicas) > 0 {
					assert.Equal(t, want, worst, "the parts say what the whole does: %v", verbose.Checks)
				}
				s.Required = true
			}
		})
	}
}

func TestTheWorstServiceIsTheWhole(t *testing.T) {
	services := map[string]Service{
		Pass: {Name: "p", Replicas: []Replica{well}},
		Warn: {Name: "w", Replicas: []Replica{dead}},
		Fail: {Name: "f", Required: true, Replicas: []Replica{dead}},
	}
	for _, c := range []struct {
		parts []string
		want  string
		code  int
	}{
		{nil, Pass, 200},
		{[]string{Pass, Pass}, Pass, 200},
		{[]string{Pass, Warn}, Warn, 200}, {[]string{Warn, Pass}, Warn, 200},
		{[]string{Warn, Fail}, Fail, 503}, {[]string{Fail, Warn}, Fail, 503}, {[]string{Fail, Pass}, Fail, 503},
	} {
		var all []Service
		for _, part := range c.parts {
			all = append(all, services[part])
		}
		r := New(all, false, now)
		assert.Equal(t, c.want, r.Status, "%v", c.parts)
		assert.Equal(t, c.code, r.Code(), "%v", c.parts)
	}
	r := New([]Service{services[Pass]}, false, now)
	r.FailBy("draining")
	assert.Equal(t, 503, r.Code())
	assert.Equal(t, &Report{Status: Fail}, r.Short())
}

func TestTheDocument(t *testing.T) {
	services := []Service{{Name: "users", Required: true, Breaker: "closed", Replicas: []Replica{well, ill}}}
	for verbose, want := range map[bool]string{
		false: `{"status":"warn","checks":{"users:responseTime":[
			{"componentType":"component","observedValue":2,"observedUnit":"ms","status":"warn","time":"2026-03-04T05:06:07.089Z","output":"1 of 2 replicas cannot be used"}]}}`,
		true: `{"status":"warn","checks":{
			"users:breaker":[{"componentType":"component","observedValue":"closed","status":"pass","time":"2026-03-04T05:06:07.089Z"}],
			"users:connections":[{"componentId":"a:80","componentType":"component","observedValue":{"open":2,"idle":1,"in_use":1,"waiting":0},"status":"pass","time":"2026-03-04T05:06:07.089Z"}],
			"users:health":[
				{"componentId":"a:80","componentType":"component","observedValue":"healthy","status":"pass","time":"2026-03-04T05:06:07.089Z"},
				{"componentId":"b:80","componentType":"component","observedValue":"healthy","status":"pass","time":"2026-03-04T05:06:07.089Z"}],
			"users:responseTime":[
				{"componentId":"a:80","componentType":"component","observedValue":1.235,"observedUnit":"ms","status":"pass","time":"2026-03-04T05:06:07.089Z"},
				{"componentId":"b:80","componentType":"component","observedValue":2,"observedUnit":"ms","status":"warn","time":"2026-03-04T05:06:07.089Z","output":"server error: status 503"}]}}`,
	} {
		got, err := json.Marshal(New(services, verbose, now))
		require.NoError(t, err)
		assert.JSONEq(t, want, string(got))
	}
}
