package stats

// What counts as steady growth.
const (
	leastGrowth  = 10 << 20 // bytes, from the first sample to the last
	leastSamples = 4
	shareRising  = 2.0 / 3 // of the steps from one sample to the next
)

// Grows judges samples of live memory, in bytes, oldest first and equally far apart. They grow steadily if all of this
// is so: there are at least four; the last is more than 10 MiB above the first; the line that fits them best, by least
// squares, rises by as much over their length; and two steps of three rise. So a cache that has filled up, one large
// allocation, or a tide that comes and goes is none. rise is that of the line from one sample to the next.
func Grows(live []uint64) (rise float64, grows bool) {
	n := len(live)
	if n < 2 { //nolint:mnd // points make a line
		return 0, false
	}
	rise = slope(live)
	rising := 0
	for i := 1; i < n; i++ {
		if live[i] > live[i-1] {
			rising++
		}
	}
	grows = n >= leastSamples &&
		live[n-1] > live[0] && live[n-1]-live[0] > leastGrowth &&
		rise*float64(n-1) > leastGrowth &&
		float64(rising) >= shareRising*float64(n-1)
	return rise, grows
}

// slope is that of the least-squares line through y at 0, 1, 2 and so on.
func slope(y []uint64) float64 {
	n := float64(len(y))
	middle, mean := (n-1)/2, 0.0 //nolint:mnd // half
	for _, v := range y {
		mean += float64(v) / n
	}
	var xy, xx float64
	for i, v := range y {
		x := float64(i) - middle
		xy += x * (float64(v) - mean)
		xx += x * x
	}
	return xy / xx
}
