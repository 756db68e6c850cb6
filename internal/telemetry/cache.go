package telemetry

import "go.opentelemetry.io/otel/attribute"

const cacheCauseKey = attribute.Key("gateway.cache.cause")

// CacheState is what a cache is in at one instant, and what it did so far.
type CacheState struct {
	Entries, Bytes              int64
	Requests                    map[string]uint64 // by result, from a closed list
	Evictions                   map[string]uint64 // by cause, from a closed list
	Collapsed, Refreshes, Drops uint64
}

// ObserveCache shows what read returns, at each collection. Several caches of one
// meter provider add up.
func (t *Telemetry) ObserveCache(read func() CacheState) (*Watch, error) {
	var w Watch
	entries := w.level("gateway.cache.entries", "{entry}", "Responses that the cache holds.")
	size := w.level("gateway.cache.size", "By", "Bytes that the cache holds, keys and bookkeeping included.")
	requests := w.count("gateway.cache.requests", "{request}", "Requests that came to the cache, by what it did with them.")
	evictions := w.count("gateway.cache.evictions", "{entry}", "Entries that the cache dropped to make room, by cause.")
	collapsed := w.count("gateway.cache.collapsed", "{request}", "Requests that were given the answer to another.")
	refreshes := w.count("gateway.cache.refreshes", "{refresh}", "Refreshes, behind requests, of what was served stale.")
	drops := w.count("gateway.cache.drops", "{refresh}", "Refreshes that there was no room for.")
	w.read = func(tell teller) {
		s := read()
		tell.number(entries, s.Entries)
		tell.number(size, s.Bytes)
		for result, n := range s.Requests {
			tell.number(requests, signed(n), cacheResultKey.String(result))
		}
		for cause, n := range s.Evictions {
			tell.number(evictions, signed(n), cacheCauseKey.String(cause))
		}
		tell.number(collapsed, signed(s.Collapsed))
		tell.number(refreshes, signed(s.Refreshes))
		tell.number(drops, signed(s.Drops))
	}
	return t.watch(&w)
}

func signed(n uint64) int64 { return int64(n) } //nolint:gosec // a count of events: they are not so many
