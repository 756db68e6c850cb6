package store

// The wheel of a shard knows, at once and roughly, what has expired. Its rings
// are levels of buckets, each level eight times as coarse as the one before. An
// entry lies in the finest level that reaches as far as it lives, so that it is
// known to have expired at most a quarter of that time too late. What lives
// longer than three months is not in it.
const (
	levels   = 7
	buckets  = 32
	due      = 0 // the ring of what has expired
	perLevel = 3 // bits
)

func bucketAt(level int, tick int64) uint32 { return uint32(1 + level*buckets + int(tick%buckets)) }

// expireAt puts a slot into the wheel, by its second; sh.mu is held.
func (es *entries[V]) expireAt(id uint32, now int64) {
	es.sweep(now)
	at := int64(es.at(id).expires)
	if at <= es.swept {
		es.pushBack(byExpiry, due, id)
		return
	}
	for level := range levels {
		shift := perLevel * level
		tick := (at + 1<<shift - 1) >> shift // the first that begins when it has expired
		if tick-es.swept>>shift < buckets {
			es.pushBack(byExpiry, bucketAt(level, tick), id)
			return
		}
	}
}

// sweep turns the wheel to now; sh.mu is held. It looks at one bucket in a
// second, most often.
func (es *entries[V]) sweep(now int64) {
	es.grow(byExpiry, levels*buckets)
	if now <= es.swept {
		return
	}
	for level := range levels {
		shift := perLevel * level
		from, to := es.swept>>shift, now>>shift
		for tick := from + 1; tick <= min(to, from+buckets); tick++ {
			es.splice(byExpiry, due, bucketAt(level, tick))
		}
	}
	es.swept = now
}

// expired returns a slot that has expired, 0 if none is known; sh.mu is held.
func (es *entries[V]) expired(now int64) uint32 {
	if len(es.heads[byExpiry]) == 0 { // nothing ever does
		return 0
	}
	es.sweep(now)
	return es.first(byExpiry, due)
}
