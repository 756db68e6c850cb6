package main

import "math"

// A line is fitted to points by least squares.
type line struct {
	slope float64
	err   float64 // the slope's standard error
	mean  float64 // of the values
}

func fit(x, y []float64) line {
	n := float64(len(x))
	if n < 3 {
		return line{err: math.Inf(1)}
	}
	var mx, my float64
	for i := range x {
		mx += x[i] / n
		my += y[i] / n
	}
	var sxx, sxy float64
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	l := line{slope: sxy / sxx, mean: my}
	var residues float64
	for i := range x {
		r := y[i] - my - l.slope*(x[i]-mx)
		residues += r * r
	}
	l.err = math.Sqrt(residues / (n - 2) / sxx)
	return l
}

// times is the line in another unit.
func (l line) times(f float64) line { return line{l.slope * f, l.err * f, l.mean * f} }

// surely is the least slope that the points leave room for: two standard
// errors below the fitted one.
func (l line) surely() float64 { return l.slope - 2*l.err }
