package flood

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		most int
		at   string // when events come, in seconds
		want string // - it does not pass, else how many did not before it
	}{
		{"so many of a second", 2, "0 0 0 0 0.9", "0 0 - - -"},
		{"the next second's first tells of the others", 2, "0 0 0 0 1 1 1", "0 0 - - 2 0 -"},
		{"once", 1, "0 0 1 2", "0 - 1 0"},
		{"a second begins with an event", 2, "0 0.9 1.8 1.9 2.7 2.8", "0 0 0 0 - 1"},
		{"however late", 1, "0 0 0 100 200", "0 - - 2 0"},
		{"no limit", 0, "0 0 0 0", "0 0 0 0"},
		{"nor a negative one", -1, "0 0", "0 0"},
	} {
		start := time.Now()
		var l Limit
		var got []string
		for at := range strings.FieldsSeq(tt.at) {
			seconds, err := time.ParseDuration(at + "s")
			assert.NoError(t, err)
			dropped, ok := l.Admit(start.Add(seconds), tt.most)
			if ok {
				got = append(got, strconv.FormatUint(dropped, 10))
			} else {
				assert.Zero(t, dropped)
				got = append(got, "-")
			}
		}
		assert.Equal(t, tt.want, strings.Join(got, " "), tt.name)
	}
}

func TestLimitLosesNone(t *testing.T) {
	t.Parallel()
	var l Limit
	var passed, dropped atomic.Uint64
	start := time.Now()
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 10_000 {
				if n, ok := l.Admit(start.Add(time.Duration(i*4+g)*time.Millisecond), 3); ok {
					passed.Add(1)
					dropped.Add(n)
				}
			}
		})
	}
	all.Wait()
	last, ok := l.Admit(start.Add(time.Hour), 3)
	assert.True(t, ok)
	assert.EqualValues(t, 40_000, passed.Load()+dropped.Load()+last)
}

func TestTable(t *testing.T) {
	t.Parallel()
	var table Table
	now := time.Now()
	passes := func(kind string) bool {
		_, ok := table.Admit(kind, now, 1)
		return ok
	}
	assert.True(t, passes("a"))
	assert.True(t, passes("b"), "each kind by itself")
	assert.False(t, passes("a"))
	for i := range 2 * maxKinds {
		passes(strconv.Itoa(i))
	}
	assert.LessOrEqual(t, len(table.limits), maxKinds+1)
	assert.False(t, passes("one of many"), "the others are one kind")
	assert.False(t, passes("b"))
}

func TestAdmitAllocatesNothing(t *testing.T) {
	var l Limit
	now := time.Now()
	assert.Zero(t, testing.AllocsPerRun(100, func() { l.Admit(now, 3) }))
}
