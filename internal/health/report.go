package health

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// MediaType is that of a Report (§2).
const MediaType = "application/health+json"

// The statuses.
const (
	Pass = "pass"
	Warn = "warn" // some of it does not work, or is in doubt
	Fail = "fail"
)

// A Service is what is known of one.
type Service struct {
	Name     string
	Required bool   // a broken one is a failure, else a warning
	Breaker  string // what it is in; empty: there is none
	Refusing bool   // the breaker refuses all, for now
	Replicas []Replica
}

// A Replica is what is known of one endpoint.
type Replica struct {
	Address string // host:port, or a socket's path
	Health  string // by its requests and checks
	Fit     bool   // it may have requests, or a trial
	Answer  Answer // of its probe
	Pool    *Pool  // nil: they are not ours
}

// A Pool is what the connections to a replica do.
type Pool struct {
	Open    int64 `json:"open"`
	Idle    int64 `json:"idle"`
	InUse   int64 `json:"in_use"`
	Waiting int64 `json:"waiting"` // requests
}

// usable reports whether the replica has answered, and may have requests.
func (r *Replica) usable() bool { return r.Fit && r.Answer.Problem == "" }

// sound reports whether it has no Health but that of an endpoint in use.
func (r *Replica) sound() bool { return r.Fit && r.Health == "healthy" }

// sound counts the replicas that are, and of which usable ones are left, too.
func (s *Service) sound() (sound, usable int) {
	for i := range s.Replicas {
		if e := &s.Replicas[i]; e.usable() {
			usable++
			if e.sound() {
				sound++
			}
		}
	}
	return sound, usable
}

// closed reports whether no breaker is in the way.
func (s *Service) closed() bool { return s.Breaker == "" || s.Breaker == "closed" }

// Broken reports whether no request can be expected to be answered: no replica is
// usable, or the breaker refuses. One whose time is over, and that waits for a
// trial, does not: were the app taken out of use for it, nobody would make one.
func (s *Service) Broken() bool {
	_, usable := s.sound()
	return s.Refusing || usable == 0
}

// Status is that of the service: pass with all of it in order, fail if it is
// broken and required, else warn.
func (s *Service) Status() string {
	sound, _ := s.sound()
	return s.status(sound == len(s.Replicas) && sound > 0 && s.closed())
}

// status is that of a part of the service, which is no worse than the service.
func (s *Service) status(well bool) string {
	switch {
	case well:
		return Pass
	case s.Broken() && s.Required:
		return Fail
	}
	return Warn
}

// A Report is the document (§3).
type Report struct {
	Status string             `json:"status"`
	Output string             `json:"output,omitempty"`
	Checks map[string][]Check `json:"checks,omitempty"`
}

// A Check is what was found of one component (§4).
type Check struct {
	ComponentID   string `json:"componentId,omitempty"`
	ComponentType string `json:"componentType"`
	ObservedValue any    `json:"observedValue,omitempty"`
	ObservedUnit  string `json:"observedUnit,omitempty"`
	Status        string `json:"status"`
	Time          string `json:"time"`
	Output        string `json:"output,omitempty"`
}

// component is the type of all components: it has no closer word for them (§4.2).
const component = "component"

// New returns the report on services, at now: one line of each, or all that is
// known of it.
func New(services []Service, verbose bool, now time.Time) *Report {
	r := &Report{Status: Pass, Checks: make(map[string][]Check, len(services))}
	for i := range services {
		s := &services[i]
		r.Status = worse(r.Status, s.Status())
		if verbose {
			r.detail(s, now)
		} else {
			r.sum(s, now)
		}
	}
	return r
}

// FailBy makes the report one of failure.
func (r *Report) FailBy(why string) { r.Status, r.Output = Fail, why }

// Short returns the report without its checks, and why.
func (r *Report) Short() *Report { return &Report{Status: r.Status} }

// Code is the HTTP status that the report is sent with (§3.1).
func (r *Report) Code() int {
	if r.Status == Fail {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

func worse(a, b string) string {
	if a == Fail || b == Pass {
		return a
	}
	return b
}

// sum adds one line: the longest that a replica took.
func (r *Report) sum(s *Service, now time.Time) {
	c := Check{ComponentType: component, Status: s.Status(), Time: stamp(now), Output: s.problem()}
	var longest time.Duration
	for i := range s.Replicas {
		longest = max(longest, s.Replicas[i].Answer.Took)
	}
	if longest > 0 {
		c.ObservedValue, c.ObservedUnit = millis(longest), "ms"
	}
	r.Checks[s.Name+":responseTime"] = []Check{c}
}

// problem says what is not in order; empty: nothing.
func (s *Service) problem() string {
	sound, usable := s.sound()
	all := len(s.Replicas)
	switch {
	case s.Refusing:
		return "the breaker is open"
	case all == 1 && s.Replicas[0].Answer.Problem != "":
		return s.Replicas[0].Answer.said()
	case usable < all:
		return fmt.Sprintf("%d of %d replicas cannot be used", all-usable, all)
	case sound < all:
		return fmt.Sprintf("%d of %d replicas wait for a trial", all-sound, all)
	case !s.closed():
		return "the breaker waits for a trial"
	}
	return ""
}

// detail adds all that is known.
func (r *Report) detail(s *Service, now time.Time) {
	at := stamp(now)
	if s.Breaker != "" {
		c := Check{ComponentType: component, ObservedValue: s.Breaker, Status: s.status(s.closed()), Time: at}
		r.Checks[s.Name+":breaker"] = []Check{c}
	}
	var times, healths, pools []Check
	for i := range s.Replicas {
		e := &s.Replicas[i]
		c := Check{ComponentID: e.Address, ComponentType: component, Status: s.status(e.Answer.Problem == ""), Time: stamp(e.Answer.At), Output: e.Answer.said()}
		if e.Answer.Took > 0 {
			c.ObservedValue, c.ObservedUnit = millis(e.Answer.Took), "ms"
		}
		times = append(times, c)
		healths = append(healths, Check{ComponentID: e.Address, ComponentType: component, ObservedValue: e.Health, Status: s.status(e.sound()), Time: at})
		if e.Pool != nil {
			pools = append(pools, Check{ComponentID: e.Address, ComponentType: component, ObservedValue: e.Pool, Status: Pass, Time: at})
		}
	}
	r.Checks[s.Name+":responseTime"], r.Checks[s.Name+":health"] = times, healths
	if pools != nil {
		r.Checks[s.Name+":connections"] = pools
	}
}

// said says what is wrong, with the status if that is.
func (a *Answer) said() string {
	if a.Problem == Troubled || a.Problem == Bad {
		return fmt.Sprintf("%s: status %d", a.Problem, a.Code)
	}
	return a.Problem
}

func millis(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Microsecond)) / 1000 }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
