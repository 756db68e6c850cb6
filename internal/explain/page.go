// Package explain lays out a text that explains something: lines, and below them rows of a label and what there is to say.
package explain

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on what is printed of one text, and on how wide a label is made room for.
const (
	maxText  = 1 << 10
	maxLabel = 24
)

// A Page is lines and rows. Whatever they hold stays on its line: control characters and what is no UTF-8 are shown as
// '?', and a text ends after 1 KiB. The zero Page is empty and ready. It is not safe for concurrent use.
type Page struct{ rows []row }

type row struct {
	label, text string
	line        bool // text, over all columns
}

// Line adds a line, unless it is empty.
func (p *Page) Line(text string) {
	if text != "" {
		p.rows = append(p.rows, row{text: clean(text), line: true})
	}
}

// Row adds a row, unless there is nothing to say.
func (p *Page) Row(label, text string) {
	if text != "" {
		p.rows = append(p.rows, row{label: clean(label), text: clean(text)})
	}
}

// String returns the page, each line with its end. What the rows below a line say stands in one column, but behind a long
// label.
func (p *Page) String() string {
	var b strings.Builder
	width := 0
	for i, r := range p.rows {
		if i == 0 || r.line {
			width = p.width(i)
		}
		if !r.line {
			gap := max(width-utf8.RuneCountInString(r.label), 0)
			b.WriteString("  " + r.label + strings.Repeat(" ", gap) + "  ")
		}
		b.WriteString(r.text)
		b.WriteByte('\n')
	}
	return b.String()
}

// width returns that of the labels from one row on to the next line.
func (p *Page) width(from int) (width int) {
	for i, r := range p.rows[from:] {
		if i > 0 && r.line {
			break
		}
		if n := utf8.RuneCountInString(r.label); n <= maxLabel {
			width = max(width, n)
		}
	}
	return width
}

// clean returns s as it may stand in a line.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

// List joins what is not empty by commas.
func List(phrases ...string) string {
	var b strings.Builder
	for _, s := range phrases {
		if s == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s)
	}
	return b.String()
}

// If returns s where that holds, else nothing.
func If(holds bool, s string) string {
	if holds {
		return s
	}
	return ""
}

// Span writes a duration that somebody is to wait or has waited: to the millisecond below ten seconds, to the second below
// ten minutes, else to the minute, without units that are zero at its end.
func Span(d time.Duration) string {
	switch {
	case d.Abs() < time.Millisecond:
		return d.String()
	case d.Abs() < 10*time.Second:
		d = d.Round(time.Millisecond)
	case d.Abs() < 10*time.Minute:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Minute)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-len("0s")]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-len("0m")]
	}
	return s
}

// Bytes writes a size in the largest unit of which there is one.
func Bytes(n int64) string {
	for i, name := range [...]string{"GiB", "MiB", "KiB"} {
		if size := float64(int64(1) << (30 - 10*i)); float64(n) >= size {
			return strconv.FormatFloat(float64(n)/size, 'f', 1, 64) + " " + name
		}
	}
	return Count(n, "byte")
}

// Count writes a number of things.
func Count[N int | int64 | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.FormatInt(int64(n), 10) + " " + thing + "s" //nolint:gosec // no count is that large
}
