package telemetry

import (
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// bounds are the upper bounds, inclusive, of the buckets of durations, as the HTTP
// semantic conventions have them.
var bounds = []time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 7500 * time.Millisecond, 10 * time.Second,
}

// ownBounds are those of the gateway's own part.
var ownBounds = []time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// connBounds are those of connections' lives.
var connBounds = []time.Duration{
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
}

// secondsOf returns bounds as OpenTelemetry and Prometheus have them.
func secondsOf(bounds []time.Duration) []float64 {
	seconds := make([]float64, len(bounds))
	for i, b := range bounds {
		seconds[i] = b.Seconds()
	}
	return seconds
}

// A series is all durations of one set of attributes. They are counted here for
// whoever reads them by Watch.Read: OpenTelemetry does not tell what it has.
type series struct {
	key     seriesKey
	attrs   []attribute.KeyValue
	options []metric.RecordOption

	sum     atomic.Uint64 // ns; the lower half of a sum of 128 bits
	carry   atomic.Uint64
	bounds  []time.Duration
	buckets []atomic.Uint64 // one more than bounds
}

func newSeries(bounds []time.Duration, key seriesKey, attrs []attribute.KeyValue) *series {
	s := &series{key: key, attrs: attrs, bounds: bounds, buckets: make([]atomic.Uint64, len(bounds)+1)}
	own := append([]attribute.KeyValue(nil), attrs...) // a set sorts what it is given
	s.options = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(own...))}
	return s
}

func (s *series) record(took time.Duration) {
	ns := uint64(max(took, 0))
	if s.sum.Add(ns) < ns {
		s.carry.Add(1)
	}
	i := 0
	for i < len(s.bounds) && took > s.bounds[i] {
		i++
	}
	s.buckets[i].Add(1)
}

// used reports whether anything was recorded: what was not is not exported.
func (s *series) used() bool {
	for i := range s.buckets {
		if s.buckets[i].Load() > 0 {
			return true
		}
	}
	return false
}

// Durations are those of one series.
type Durations struct {
	Bounds []float64 // of the buckets, in seconds, inclusive
	Counts []uint64  // of each bucket alone, and of what is beyond
	Sum    float64   // seconds
}

func (s *series) read() *Durations {
	d := &Durations{Bounds: secondsOf(s.bounds), Counts: make([]uint64, len(s.buckets))}
	for i := range s.buckets {
		d.Counts[i] = s.buckets[i].Load()
	}
	d.Sum = (float64(s.carry.Load())*(1<<64) + float64(s.sum.Load())) / 1e9
	return d
}

// overflowKey is true where OpenTelemetry's SDK puts what is of more series than it
// keeps.
const overflowKey = attribute.Key("otel.metric.overflow")

// A histogram is an instrument of durations.
type histogram struct{ name, what string }

// maxSeries is how many series a route or an endpoint keeps. What is beyond is
// counted together; for OpenTelemetry, which has its own limit, its attributes are
// made for each record.
const maxSeries = 80

// seriesTable are the series of a route or of an endpoint.
type seriesTable struct {
	known    table[seriesKey, *series]
	first    atomic.Pointer[series] // which most requests are of, as a rule
	overflow atomic.Pointer[series]
}

// record counts a duration, and returns the options to record it with. fixed are
// the attributes that the key does not hold.
func (t *seriesTable) record(key seriesKey, took time.Duration, fixed func() []attribute.KeyValue) []metric.RecordOption {
	s := t.first.Load()
	if s == nil || s.key != key {
		if s = t.of(key, fixed); s == nil {
			t.beyond().record(took)
			return newSeries(bounds, key, key.attributes(fixed())).options
		}
	}
	s.record(took)
	return s.options
}

// of returns the series, or nil beyond the limit.
func (t *seriesTable) of(key seriesKey, fixed func() []attribute.KeyValue) *series {
	s, ok := t.known.get(key)
	if !ok {
		s, ok = t.known.put(key, newSeries(bounds, key, key.attributes(fixed())), maxSeries)
	}
	if !ok {
		return nil
	}
	t.first.CompareAndSwap(nil, s)
	return s
}

func (t *seriesTable) beyond() *series {
	if s := t.overflow.Load(); s != nil {
		return s
	}
	t.overflow.CompareAndSwap(nil, newSeries(bounds, seriesKey{}, []attribute.KeyValue{overflowKey.Bool(true)}))
	return t.overflow.Load()
}

// each tells all series of a histogram.
func (t *seriesTable) each(tell teller, h histogram) {
	if known := t.known.m.Load(); known != nil {
		for _, s := range *known {
			tell.durations(h, s)
		}
	}
	if s := t.overflow.Load(); s != nil {
		tell.durations(h, s)
	}
}
