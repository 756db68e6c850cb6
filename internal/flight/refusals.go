package flight

import "time"

const (
	maxRefusals = 64 << 10 // remembered by a group
	refusalSets = maxRefusals / groupShards / refusalWays
	refusalWays = 4

	maxRefusal = 2 * time.Minute // and for how long
)

// refusals remembers the keys of a shard whose answers may not be shared, by
// hash alone: a key that shares another's hash is fetched alone, which is no
// fault, and a key of any length costs 16 bytes. An empty place is one that has
// expired. The zero value remembers nothing and holds no memory.
type refusals struct {
	sets *[refusalSets][refusalWays]refusal
}

type refusal struct {
	hash  uint64
	until time.Duration
}

func (r *refusals) has(hash uint64, at time.Duration) bool {
	for _, s := range r.set(hash) {
		if s.hash == hash {
			return at < s.until
		}
	}
	return false
}

// add takes the place that hash has already, or else of the one in its set that
// expires first.
func (r *refusals) add(hash uint64, until time.Duration) {
	if r.sets == nil {
		r.sets = new([refusalSets][refusalWays]refusal)
	}
	set := r.set(hash)
	place := &set[0]
	for i := range set {
		s := &set[i]
		if s.hash == hash {
			place = s
			break
		}
		if s.until < place.until {
			place = s
		}
	}
	*place = refusal{hash, until}
}

func (r *refusals) forget(hash uint64) {
	set := r.set(hash)
	for i := range set {
		if set[i].hash == hash {
			set[i] = refusal{}
		}
	}
}

// set returns the places where hash may be. The low bits chose the shard.
func (r *refusals) set(hash uint64) []refusal {
	if r.sets == nil {
		return nil
	}
	return r.sets[hash/groupShards%refusalSets][:]
}
