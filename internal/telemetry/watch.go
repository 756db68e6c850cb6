package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// An instrument is one of those that are read at each collection.
type instrument struct {
	name, unit, what string
	counts           bool // else it is a level
	observable       metric.Int64Observable
	timed            bool                     // it counts nanoseconds, and tells seconds
	time             metric.Float64Observable // of one that is timed
}

// value is what is told of n.
func (i *instrument) value(n int64) float64 {
	if i.timed {
		return time.Duration(n).Seconds()
	}
	return float64(n)
}

// A teller is told of what instruments show.
type teller struct {
	number    func(i *instrument, n int64, attrs ...attribute.KeyValue)
	durations func(h histogram, s *series) // nil: they are not asked for
}

// A Watch is a group of instruments that nothing is recorded by in between: they
// are read when OpenTelemetry collects, and by Read. It is safe for concurrent
// use.
type Watch struct {
	instruments []*instrument
	read        func(teller)
	stop        func()
}

// Stop ends the collections of OpenTelemetry. Read goes on.
func (w *Watch) Stop() { w.stop() }

func (w *Watch) level(name, unit, what string) *instrument {
	return w.add(&instrument{name: name, unit: unit, what: what})
}

func (w *Watch) count(name, unit, what string) *instrument {
	return w.add(&instrument{name: name, unit: unit, what: what, counts: true})
}

// countTime is count of nanoseconds, which are told as seconds.
func (w *Watch) countTime(name, what string) *instrument {
	i := w.count(name, "s", what)
	i.timed = true
	return i
}

func (w *Watch) add(i *instrument) *instrument {
	w.instruments = append(w.instruments, i)
	return i
}

// watch creates the instruments, and has them read.
func (t *Telemetry) watch(w *Watch) (*Watch, error) {
	var faults []error
	observables := make([]metric.Observable, len(w.instruments))
	for n, i := range w.instruments {
		var err error
		if i.timed {
			i.time, err = t.meter.Float64ObservableCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.what))
			observables[n], faults = i.time, append(faults, err)
			continue
		}
		if i.counts {
			i.observable, err = t.meter.Int64ObservableCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.what))
		} else {
			i.observable, err = t.meter.Int64ObservableUpDownCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.what))
		}
		observables[n], faults = i.observable, append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("create instruments: %w", err)
	}
	r, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		w.read(teller{number: func(i *instrument, n int64, attrs ...attribute.KeyValue) {
			set := metric.WithAttributeSet(attribute.NewSet(attrs...))
			if i.timed {
				o.ObserveFloat64(i.time, i.value(n), set)
				return
			}
			o.ObserveInt64(i.observable, n, set)
		}})
		return nil
	}, observables...)
	if err != nil {
		return nil, fmt.Errorf("observe: %w", err)
	}
	w.stop = sync.OnceFunc(func() { _ = r.Unregister() })
	return w, nil
}

// A Sample is what an instrument shows, under the names that OpenTelemetry's
// exporter for Prometheus gives to it by default.
type Sample struct {
	Name, Help string
	Labels     []string // pairs of a name and a value

	Counts    bool // it is a counter, else a gauge
	Value     float64
	Durations *Durations // of a histogram
}

// Read tells what the instruments show.
func (w *Watch) Read(tell func(*Sample)) {
	w.read(teller{
		number: func(i *instrument, n int64, attrs ...attribute.KeyValue) {
			tell(&Sample{Name: promName(i.name, i.unit, i.counts), Help: i.what, Labels: promLabels(attrs), Counts: i.counts, Value: i.value(n)})
		},
		durations: func(h histogram, s *series) {
			tell(&Sample{Name: promName(h.name, "s", false), Help: h.what, Labels: promLabels(s.attrs), Durations: s.read()})
		},
	})
}

// promName names a metric as Prometheus would have it: the unit is a part of the
// name, unless it says what is counted, and counters say that they are some.
func promName(name, unit string, counts bool) string {
	name = promUnderscores.Replace(name)
	for _, suffix := range [...]struct {
		due  bool
		text string
	}{{unit == "s", "_seconds"}, {unit == "By", "_bytes"}, {unit == "1" && !counts, "_ratio"}, {counts, "_total"}} {
		if suffix.due && !strings.HasSuffix(name, suffix.text) {
			name += suffix.text
		}
	}
	return name
}

// promLabels are the pairs of attributes.
func promLabels(attrs []attribute.KeyValue) []string {
	labels := make([]string, 0, 2*len(attrs))
	for _, a := range attrs {
		labels = append(labels, promUnderscores.Replace(string(a.Key)), a.Value.String())
	}
	return labels
}

// Our names have no other marks that Prometheus has no use for.
var promUnderscores = strings.NewReplacer(".", "_", "-", "_")
