package rfc9111

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLinesOfHits(t *testing.T) {
	t.Parallel()
	l := &Lines{Cache: "gateway"}
	h := l.Hit(61, time.Minute+time.Second/2)
	assert.Equal(t, "61", h.Age)
	assert.Equal(t, "gateway; hit; ttl=-1", h.Status)
	assert.Same(t, h, l.Hit(61, time.Minute+time.Second/2))
	other := l.Hit(61, time.Hour)
	assert.Equal(t, "gateway; hit; ttl=3539", other.Status)
	assert.Equal(t, "gateway; hit; ttl=3795", l.Hit(61, time.Hour+time.Duration(len(l.hits))*time.Second).Status, "of the same place")
	for age := range int64(1000) { // more than there are places for
		assert.Equal(t, strconv.FormatInt(age, 10), l.Hit(age, time.Hour).Age)
	}
	assert.Equal(t, h.Status, l.Hit(61, time.Minute+time.Second/2).Status)
}

func TestLinesOfMisses(t *testing.T) {
	t.Parallel()
	l := &Lines{Cache: "gateway"}
	for range 2 {
		for status := range maxMissLines + 10 {
			m := Miss{Forward: ForwardURIMiss, ForwardStatus: status + 1, Stored: true}
			assert.Equal(t, "gateway; fwd=uri-miss; fwd-status="+strconv.Itoa(status+1)+"; stored", l.Miss(m))
		}
	}
	assert.Len(t, *l.misses.Load(), maxMissLines, "what upstreams bring about is bounded")
	assert.Equal(t, "gateway; fwd=stale; detail=vary", l.Miss(Miss{Forward: ForwardStale, Detail: "vary"}))
}

func TestLinesOfWhatOccurredAreNotMadeAgain(t *testing.T) {
	l, m := &Lines{Cache: "gateway"}, Miss{Forward: ForwardMethod, Detail: "method"}
	l.Miss(m)
	l.Hit(1, time.Minute)
	assert.Zero(t, testing.AllocsPerRun(100, func() { l.Miss(m); l.Hit(1, time.Minute) }))
}
