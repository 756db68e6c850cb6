package balance

import "sync/atomic"

const windowBuckets = 10

// window counts requests of a time that rolls on in ticks: the one that runs and the nine before it.
type window struct{ total, failed counts }

// counts holds a tick in the upper half of each word and its count in the lower, so that counting needs no lock.
type counts [windowBuckets]atomic.Uint64

func (c *counts) add(tick uint64) {
	slot := &c[tick%windowBuckets]
	for {
		word := slot.Load()
		if word>>32 >= tick { // a later one: this goroutine slept after it had looked at the clock
			slot.Add(1)
			return
		}
		if slot.CompareAndSwap(word, tick<<32|1) {
			return
		}
	}
}

func (c *counts) sum(tick uint64) (n uint64) {
	for i := range c {
		if word := c[i].Load(); word>>32+windowBuckets > tick {
			n += word & (1<<32 - 1)
		}
	}
	return n
}
