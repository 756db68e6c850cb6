package main

import "sync"

// keyed counts the requests for each key.
type keyed struct {
	mu  sync.Mutex
	all map[string]*perKey
}

type perKey struct{ requests, now, atOnce int64 }

// keyCounts are since they were last asked for.
type keyCounts struct {
	Keys, Requests int64
	Most           int64 // of one key
	AtOnce         int64 // of one key
}

// begin counts a request, until end is called.
func (k *keyed) begin(key string) (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = map[string]*perKey{}
	}
	of := k.all[key]
	if of == nil {
		of = new(perKey)
		k.all[key] = of
	}
	of.requests++
	of.now++
	of.atOnce = max(of.atOnce, of.now)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		of.now--
	}
}

func (k *keyed) count(nothing) (c keyCounts, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, of := range k.all {
		c.Keys++
		c.Requests += of.requests
		c.Most, c.AtOnce = max(c.Most, of.requests), max(c.AtOnce, of.atOnce)
	}
	k.all = nil
	return c, nil
}
