package stats

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TextType is the media type of what [Text] holds.
const TextType = "text/plain; version=0.0.4; charset=utf-8"

// Text is a page of metrics in the Prometheus text format 0.0.4, families and series in order of their names. What is
// told of one series twice adds up. Labels are pairs of a name and a value; names are the caller's to choose well, values
// and help are escaped. The zero Text is empty and ready. It is not safe for concurrent use.
type Text struct {
	families map[string]*family
}

// A family is all series of one name.
type family struct {
	help, kind string
	values     map[string]float64 // by labels
	histograms map[string]*histogram
}

// Counter tells a count, whose name ends in _total.
func (t *Text) Counter(name, help string, n float64, labels ...string) {
	t.family(name, help, "counter").values[labelText(labels)] += n
}

// Gauge tells a level.
func (t *Text) Gauge(name, help string, n float64, labels ...string) {
	t.family(name, help, "gauge").values[labelText(labels)] += n
}

// A histogram is one series.
type histogram struct {
	bounds []float64
	counts []uint64 // one more than bounds
	sum    float64
}

// Histogram tells how many values lie in each bucket: within its bound and not
// within the one before; the last count is of those that are beyond. All series of
// a name have the same bounds.
func (t *Text) Histogram(name, help string, bounds []float64, counts []uint64, sum float64, labels ...string) {
	f, key := t.family(name, help, "histogram"), labelText(labels)
	h := f.histograms[key]
	if h == nil {
		h = &histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
		f.histograms[key] = h
	}
	for i, n := range counts {
		h.counts[i] += n
	}
	h.sum += sum
}

func (t *Text) family(name, help, kind string) *family {
	if t.families == nil {
		t.families = make(map[string]*family)
	}
	f := t.families[name]
	if f == nil {
		f = &family{help: help, kind: kind, values: make(map[string]float64), histograms: make(map[string]*histogram)}
		t.families[name] = f
	}
	return f
}

// Append appends the page to dst.
func (t *Text) Append(dst []byte) []byte {
	for _, name := range slices.Sorted(maps.Keys(t.families)) {
		f := t.families[name]
		dst = append(dst, "# HELP "+name+" "+helpEscapes.Replace(strings.ToValidUTF8(f.help, "\uFFFD"))+"\n"...)
		dst = append(dst, "# TYPE "+name+" "+f.kind+"\n"...)
		for _, labels := range slices.Sorted(maps.Keys(f.values)) {
			dst = appendSample(dst, name, labels, f.values[labels])
		}
		for _, labels := range slices.Sorted(maps.Keys(f.histograms)) {
			dst = f.histograms[labels].appendSamples(dst, name, labels)
		}
	}
	return dst
}

func (h *histogram) appendSamples(dst []byte, name, labels string) []byte {
	more := ""
	if labels != "" {
		more = ","
	}
	var n uint64
	for i, bound := range h.bounds {
		n += h.counts[i]
		dst = appendSample(dst, name+"_bucket", labels+more+`le="`+strconv.FormatFloat(bound, 'g', -1, 64)+`"`, float64(n))
	}
	n += h.counts[len(h.bounds)]
	dst = appendSample(dst, name+"_bucket", labels+more+`le="+Inf"`, float64(n))
	dst = appendSample(dst, name+"_sum", labels, h.sum)
	return appendSample(dst, name+"_count", labels, float64(n))
}

func appendSample(dst []byte, name, labels string, value float64) []byte {
	dst = append(dst, name...)
	if labels != "" {
		dst = append(dst, "{"+labels+"}"...)
	}
	dst = append(dst, ' ')
	dst = strconv.AppendFloat(dst, value, 'f', -1, 64)
	return append(dst, '\n')
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// labelText writes labels, in order of their names; those without a value are left out, which means the same.
func labelText(pairs []string) string {
	var labels []string
	for pair := range slices.Chunk(pairs, 2) {
		if len(pair) == 2 && pair[1] != "" {
			labels = append(labels, pair[0]+`="`+valueEscapes.Replace(strings.ToValidUTF8(pair[1], "\uFFFD"))+`"`)
		}
	}
	slices.Sort(labels)
	return strings.Join(labels, ",")
}
