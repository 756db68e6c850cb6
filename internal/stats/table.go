package stats

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Table prints lines of cells in columns: the first is aligned on its left, the others on their right. A line of one
// cell is of no column. The zero Table is ready.
type Table struct{ lines [][]string }

// Line adds a line.
func (t *Table) Line(cells ...string) { t.lines = append(t.lines, cells) }

// Summary adds a line with what there is to say of durations, under Headings.
func (t *Table) Summary(name string, s *Summary) {
	t.Line(name, strconv.FormatUint(s.Count, 10), Short(s.Total), Short(s.Mean), Short(s.Min), Short(s.P50), Short(s.P95), Short(s.P99), Short(s.Max))
}

// Headings adds the line above those of Summary.
func (t *Table) Headings(name string) {
	t.Line(name, "count", "total", "mean", "min", "p50", "p95", "p99", "max")
}

// String returns the table, each line with its end.
func (t *Table) String() string {
	var widths []int
	for _, line := range t.lines {
		for i, cell := range line {
			if len(line) == 1 {
				break // it is no column's
			}
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range t.lines {
		for i, cell := range line {
			if len(line) == 1 {
				b.WriteString(cell)
				break
			}
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  " + gap + cell)
			} else {
				b.WriteString(cell + gap)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Short writes a duration in three digits, such as 1.23ms, and one of a minute or more to the second.
func Short(d time.Duration) string {
	if d.Abs() >= time.Minute {
		return d.Truncate(time.Second).String()
	}
	unit := time.Nanosecond
	for d.Abs() >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}
