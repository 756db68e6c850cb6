package flight

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var theKey = []byte("key")

func lead(t *testing.T, g *Group[string]) Call[string] {
	t.Helper()
	c, role := g.Join(theKey, time.Now())
	require.Equal(t, Lead, role)
	return c
}

func follow(t *testing.T, g *Group[string]) Call[string] {
	t.Helper()
	c, role := g.Join(theKey, time.Now())
	require.Equal(t, Follow, role)
	return c
}

type ending struct {
	v  string
	o  Outcome
	at time.Duration // since the wait began
}

// await lets n follow, and returns what becomes of them.
func await(t *testing.T, g *Group[string], n int, stop <-chan struct{}, timeout time.Duration) <-chan ending {
	t.Helper()
	ends := make(chan ending, n)
	start := time.Now()
	for range n {
		c := follow(t, g)
		go func() {
			v, o := c.Wait(stop, timeout)
			ends <- ending{v, o, time.Since(start)}
		}()
	}
	return ends
}

// all takes n endings, which must be there, and returns how often each came.
func all(t *testing.T, ends <-chan ending, n int) map[ending]int {
	t.Helper()
	synctest.Wait()
	require.Len(t, ends, n)
	got := make(map[ending]int)
	for range n {
		got[<-ends]++
	}
	return got
}

// Each verdict reaches ten thousand at the instant it is given.
func TestVerdictReachesAllAtOnce(t *testing.T) {
	t.Parallel()
	const n = 10_000
	tests := []struct {
		name    string
		verdict func(c *Call[string])
		want    ending
		next    Role // of who joins afterwards
		stats   GroupStats
	}{
		{
			"shared", func(c *Call[string]) { c.Share("v") },
			ending{"v", Shared, time.Second}, Follow, GroupStats{Calls: 1, Collapsed: n},
		},
		{
			"failed", func(c *Call[string]) { c.Fail("502") },
			ending{"502", Failed, time.Second}, Lead, GroupStats{Calls: 1, Failed: n},
		},
		{
			"refused", func(c *Call[string]) { c.Refuse(time.Now(), time.Minute) },
			ending{"", Refused, time.Second}, Alone, GroupStats{Refused: n},
		},
		{
			"refused, not remembered", func(c *Call[string]) { c.Refuse(time.Now(), 0) },
			ending{"", Refused, time.Second}, Lead, GroupStats{Calls: 1, Refused: n},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup[string]()
				c := lead(t, g)
				ends := await(t, g, n, nil, time.Minute)
				require.Equal(t, n, c.Followers())
				time.Sleep(time.Second)
				tt.verdict(&c)
				assert.Equal(t, map[ending]int{tt.want: n}, all(t, ends, n))
				assert.Zero(t, c.Followers())
				_, role := g.Join(theKey, time.Now())
				assert.Equal(t, tt.next, role)
				assert.Equal(t, tt.stats, g.Stats())
			})
		})
	}
}

// Who joins a shared call gets the value at once, until it is done.
func TestLateJoiner(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	c := lead(t, g)
	assert.Equal(t, theKey, c.Key())
	c.Share("v")
	f := follow(t, g)
	stopped := make(chan struct{})
	close(stopped)
	v, o := f.Wait(stopped, time.Nanosecond)
	assert.Equal(t, ending{v: "v", o: Shared}, ending{v: v, o: o})
	c.Abandon() // deferred, while a task has the body
	follow(t, g)
	c.Done()
	c.Done()
	assert.Equal(t, GroupStats{Collapsed: 1}, g.Stats())
	v, o = f.Wait(nil, 0)
	assert.Equal(t, ending{v: "v", o: Shared}, ending{v: v, o: o}, "who joined before")
	c = lead(t, g)
	assert.Equal(t, 1, g.Stats().Calls)
	c.Done() // without a verdict
	assert.Zero(t, g.Stats().Calls)
}

// The first verdict counts, and only that of the caller who leads.
func TestVerdictThatComesTooLate(t *testing.T) {
	t.Parallel()
	verdicts := map[string]func(c *Call[string]){
		"share":   func(c *Call[string]) { c.Share("late") },
		"refuse":  func(c *Call[string]) { c.Refuse(time.Now(), time.Minute) },
		"fail":    func(c *Call[string]) { c.Fail("late") },
		"abandon": func(c *Call[string]) { c.Abandon() },
		"done":    func(c *Call[string]) { c.Done() },
		"quit":    func(c *Call[string]) { c.Quit() },
	}
	for name, late := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewGroup[string]()
			var alone Call[string]
			late(&alone)
			assert.Nil(t, alone.Key())
			assert.Zero(t, alone.Followers())
			_, o := alone.Wait(nil, 0)
			assert.Equal(t, Refused, o)

			former := lead(t, g)
			f := follow(t, g)
			late(&f) // who follows gives no verdict
			require.Equal(t, 1, former.Followers())

			former.Abandon()
			late(&former) // nobody leads
			require.Equal(t, 1, g.Stats().Calls)
			v, o := f.Wait(nil, 0)
			require.Equal(t, ending{o: Promoted}, ending{v: v, o: o})
			w := follow(t, g)
			late(&former) // another leads
			require.Equal(t, 1, f.Followers())
			f.Share("v")
			v, o = w.Wait(nil, 0)
			require.Equal(t, ending{v: "v", o: Shared}, ending{v: v, o: o})

			late(&former)
			follow(t, g)
			assert.EqualValues(t, 1, g.Stats().Abandoned)
		})
	}
}

// Without followers there is nothing to share.
func TestQuit(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	c := lead(t, g)
	assert.True(t, c.Quit())
	assert.True(t, c.Quit())
	c.Abandon()
	assert.Equal(t, GroupStats{}, g.Stats())
	c = lead(t, g)
	f := follow(t, g)
	require.False(t, c.Quit())
	c.Share("v")
	v, o := f.Wait(nil, 0)
	assert.Equal(t, ending{v: "v", o: Shared}, ending{v: v, o: o})
}

// A leader that leaves, be it by a panic, is followed by one at a time.
func TestLeaderLeaves(t *testing.T) {
	t.Parallel()
	const n = 100
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string]()
		c := lead(t, g)
		var led, shared, leaders atomic.Int64
		for range n {
			f := follow(t, g)
			go func() {
				v, o := f.Wait(nil, time.Hour)
				if o == Shared && v == "v" {
					shared.Add(1)
					return
				}
				defer func() { _ = recover() }()
				defer f.Abandon()
				defer leaders.Add(-1)
				if o != Promoted || leaders.Add(1) > 1 {
					panic("two lead")
				}
				time.Sleep(time.Second)
				if led.Add(1) == n/2 {
					f.Share("v")
					return
				}
				panic("leader")
			}()
		}
		time.Sleep(time.Second)
		c.Abandon()
		time.Sleep(n * time.Second)
		assert.EqualValues(t, n/2, led.Load())
		assert.EqualValues(t, n/2, shared.Load())
		assert.Equal(t, GroupStats{Calls: 1, Collapsed: n / 2, Abandoned: n / 2}, g.Stats())
	})
}

// A call that nobody leads is led by the next to join, or is gone with the last
// who waits.
func TestVacantCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string]()
		c := lead(t, g)
		f := follow(t, g) // does not wait yet
		c.Abandon()
		c = lead(t, g)
		c.Abandon()
		c = lead(t, g)
		ends := await(t, g, 1, nil, time.Minute)
		c.Share("v")
		assert.Equal(t, map[ending]int{{v: "v", o: Shared}: 1}, all(t, ends, 1))
		_, o := f.Wait(nil, 0)
		assert.Equal(t, Shared, o)
		c.Done()

		c = lead(t, g)
		stop := make(chan struct{})
		close(stop)
		f, f2 := follow(t, g), follow(t, g)
		c.Abandon()
		_, o = f.Wait(stop, 0)
		assert.Equal(t, Stopped, o)
		assert.Equal(t, 1, g.Stats().Calls)
		_, o = f2.Wait(stop, 0)
		assert.Equal(t, Stopped, o)
		assert.Zero(t, g.Stats().Calls)
	})
}

// Of many who wait, each waits for no longer than it would.
func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	const n = 10_000
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string]()
		c := lead(t, g)
		stop := make(chan struct{})
		late := await(t, g, n, nil, 2*time.Second)
		gone := await(t, g, n, stop, time.Minute)
		patient := await(t, g, n, nil, 0)
		time.Sleep(time.Second)
		close(stop)
		assert.Equal(t, map[ending]int{{"", Stopped, time.Second}: n}, all(t, gone, n))
		time.Sleep(time.Second)
		assert.Equal(t, map[ending]int{{"", TimedOut, 2 * time.Second}: n}, all(t, late, n))
		assert.Equal(t, n, c.Followers())
		time.Sleep(24 * time.Hour)
		c.Share("v")
		assert.Equal(t, map[ending]int{{"v", Shared, 24*time.Hour + 2*time.Second}: n}, all(t, patient, n))
		assert.Equal(t, GroupStats{Calls: 1, Collapsed: n, TimedOut: n}, g.Stats())
	})
}

// Ten thousand clients leave with their leader: none is stuck, nobody leads.
func TestAllLeave(t *testing.T) {
	t.Parallel()
	const n = 10_000
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string]()
		c := lead(t, g)
		stop := make(chan struct{})
		ends := await(t, g, n, stop, time.Minute)
		synctest.Wait()
		close(stop)
		c.Abandon()
		assert.Equal(t, map[ending]int{{o: Stopped}: n}, all(t, ends, n))
		assert.Equal(t, GroupStats{Abandoned: 1}, g.Stats())
	})
}

func TestRefusalIsRemembered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		d, fresh time.Duration // what was asked for, and what is remembered
		forget   bool
	}{
		{name: "as long as asked", d: 10 * time.Second, fresh: 10 * time.Second},
		{name: "two minutes at most", d: time.Hour, fresh: 2 * time.Minute},
		{name: "not at all", d: 0},
		{name: "negative", d: -time.Second},
		{name: "until it is forgotten", d: time.Minute, forget: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup[string]()
				g.Forget(theKey) // nothing to forget
				c := lead(t, g)
				c.Refuse(time.Now(), tt.d)
				if tt.forget {
					g.Forget(theKey)
				}
				if tt.fresh > 0 {
					time.Sleep(tt.fresh - 1)
					_, role := g.Join(theKey, time.Now())
					require.Equal(t, Alone, role)
					_, role = g.Join([]byte("another"), time.Now())
					require.Equal(t, Lead, role)
					time.Sleep(time.Nanosecond)
				}
				lead(t, g)
			})
		})
	}
}

// A hostile client that asks for ever more keys makes a group forget, and not
// grow.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	now := time.Now()
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	const n = 2 * maxRefusals
	for i := range n {
		c, _ := g.Join(key(i), now)
		c.Refuse(now, time.Minute+time.Duration(i))
	}
	alone, last := 0, 0
	for i := range n {
		if c, role := g.Join(key(i), now); role == Alone {
			alone++
			if i >= n-maxRefusals/10 {
				last++
			}
		} else {
			c.Quit()
		}
	}
	assert.LessOrEqual(t, alone, maxRefusals)
	assert.Greater(t, alone, maxRefusals*9/10)
	assert.Greater(t, last, maxRefusals/10*9/10, "what expires last stays")
	assert.Zero(t, g.Stats().Calls)
}

func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	now := time.Now()
	for i := range 2 * maxCalls {
		g.Join(binary.BigEndian.AppendUint64(nil, uint64(i)), now)
	}
	assert.Equal(t, maxCalls, g.Stats().Calls)
	_, role := g.Join(theKey, now)
	assert.Equal(t, Alone, role)
}

// Two keys of one hash share nothing.
func TestHashIsNotTheKey(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	lead(t, g)
	hash, sh := g.shard(theKey)
	sh.calls[hash].key = []byte("another")
	_, role := g.Join(theKey, time.Now())
	assert.Equal(t, Alone, role)
	g.Detach(theKey)
	assert.Equal(t, 1, g.Stats().Calls)
}

// Who joins after an invalidation does not get what was fetched before it; who
// waited then does.
func TestDetach(t *testing.T) {
	t.Parallel()
	other := []byte("other")
	tests := []struct {
		name   string
		detach func(g *Group[string])
		others int // calls that remain
	}{
		{"key", func(g *Group[string]) { g.Detach(theKey) }, 1},
		{"all", (*Group[string]).DetachAll, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup[string]()
				g.Join(other, time.Now())
				before := lead(t, g)
				ends := await(t, g, 3, nil, time.Minute)
				tt.detach(g)
				require.Equal(t, tt.others, g.Stats().Calls)
				after := lead(t, g)
				ends2 := await(t, g, 2, nil, time.Minute)

				before.Abandon() // hands on to one who waited for it
				synctest.Wait()
				require.Len(t, ends, 1)
				require.Equal(t, ending{o: Promoted}, <-ends)
				after.Share("after")
				assert.Equal(t, map[ending]int{{v: "after", o: Shared}: 2}, all(t, ends2, 2))
				assert.Empty(t, ends)
				before.Done() // not its call
				f := follow(t, g)
				v, _ := f.Wait(nil, 0)
				assert.Equal(t, "after", v)
				time.Sleep(time.Minute) // nobody ends the call that was detached
				assert.Equal(t, map[ending]int{{o: TimedOut, at: time.Minute}: 2}, all(t, ends, 2))
			})
		})
	}
}

// A verdict on a detached call leaves the call that came after it alone.
func TestVerdictOnDetachedCall(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]func(c *Call[string]){
		"share":   func(c *Call[string]) { c.Share("v"); c.Done() },
		"fail":    func(c *Call[string]) { c.Fail("v") },
		"refuse":  func(c *Call[string]) { c.Refuse(time.Now(), 0) },
		"abandon": func(c *Call[string]) { c.Abandon() },
		"quit":    func(c *Call[string]) { c.Quit() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewGroup[string]()
			before := lead(t, g)
			g.Detach(theKey)
			after := lead(t, g)
			verdict(&before)
			follow(t, g)
			assert.Equal(t, 1, after.Followers())
		})
	}
}

// Whatever happens in whatever order, one leads a call at a time, everyone gets
// an outcome, what is shared is of the key that was asked for, and nothing
// remains.
func TestPeekSaysWhatJoinDoes(t *testing.T) {
	t.Parallel()
	g := NewGroup[string]()
	peek := func(want Role) {
		t.Helper()
		before := g.Stats()
		for range 3 {
			require.Equal(t, want, g.Peek(theKey, time.Now()))
		}
		require.Equal(t, before, g.Stats())
	}
	peek(Lead)
	c := lead(t, g)
	peek(Follow)
	f := follow(t, g)
	c.Abandon()
	peek(Lead) // the call is vacant
	c = lead(t, g)
	c.Refuse(time.Now(), time.Minute)
	_, o := f.Wait(nil, 0)
	require.Equal(t, Refused, o)
	peek(Alone)
	_, role := g.Join(theKey, time.Now())
	require.Equal(t, Alone, role)
}

func TestOneLeads(t *testing.T) {
	t.Parallel()
	const (
		workers = 64
		rounds  = 400
		keys    = 5
	)
	for _, detach := range []bool{false, true} {
		t.Run(fmt.Sprintf("detach=%t", detach), func(t *testing.T) {
			t.Parallel()
			g := NewGroup[string]()
			var wg sync.WaitGroup
			m := &model{g: g, detach: detach}
			for seed := range uint64(workers) {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, 1))
					for range rounds {
						m.request(fmt.Appendf(nil, "key%d", rnd.IntN(keys)), rnd)
					}
				})
			}
			wg.Wait()
			s := g.Stats()
			assert.Zero(t, m.wrong.Load())
			assert.Zero(t, s.Calls)
			assert.EqualValues(t, workers*rounds, m.led.Load()+m.others.Load())
			for what, n := range map[string]uint64{
				"collapsed": s.Collapsed, "failed": s.Failed, "refused": s.Refused, "timed out": s.TimedOut, "abandoned": s.Abandoned,
			} {
				assert.NotZero(t, n, what)
			}
		})
	}
}

// model knows who leads what.
type model struct {
	g      *Group[string]
	detach bool

	leaders            sync.Map // of a key, or, as it may be detached, of a call: *atomic.Int64
	led, others, wrong atomic.Int64
}

func (m *model) request(key []byte, rnd *rand.Rand) {
	c, role := m.g.Join(key, time.Now())
	if role == Follow {
		stop := make(chan struct{})
		if rnd.IntN(8) == 0 {
			close(stop)
		}
		timeout := time.Minute
		if rnd.IntN(4) == 0 {
			timeout = time.Duration(1 + rnd.IntN(200))
		}
		v, o := c.Wait(stop, timeout)
		if (o == Shared || o == Failed) != (v == string(key)) {
			m.wrong.Add(1)
		}
		if o == Promoted {
			role = Lead
		}
	}
	if role != Lead {
		m.others.Add(1)
		return
	}
	m.led.Add(1)
	defer func() { _ = recover() }()
	defer c.Abandon()
	m.lead(&c, string(key), rnd)
}

func (m *model) lead(c *Call[string], key string, rnd *rand.Rand) {
	var who any = key
	if m.detach {
		who = c.c
	}
	count, _ := m.leaders.LoadOrStore(who, new(atomic.Int64))
	n := count.(*atomic.Int64)
	if n.Add(1) != 1 {
		m.wrong.Add(1)
	}
	for range rnd.IntN(8) { // lets others join
		runtime.Gosched()
	}
	if m.detach && rnd.IntN(4) == 0 {
		m.g.Detach([]byte(key))
	}
	n.Add(-1)
	switch rnd.IntN(8) {
	case 0:
		c.Refuse(time.Now(), time.Duration(rnd.IntN(100))*time.Microsecond)
	case 1:
		c.Fail(key)
	case 2:
		panic("leader")
	case 3:
		c.Abandon()
	case 4:
		if c.Quit() {
			return
		}
		fallthrough
	default:
		c.Share(key)
		c.Done()
	}
	m.g.Forget([]byte(key))
}

// A leader that nobody follows pays for its call and its key.
func TestLeadAllocates(t *testing.T) {
	g := NewGroup[string]()
	now := time.Now()
	n := testing.AllocsPerRun(1000, func() {
		c, _ := g.Join(theKey, now)
		defer c.Abandon()
		c.Share("v")
		c.Done()
	})
	if !raceEnabled {
		assert.LessOrEqual(t, n, 2.0)
	}
}

func TestAloneDoesNotAllocate(t *testing.T) {
	g := NewGroup[string]()
	now := time.Now()
	c := lead(t, g)
	c.Refuse(now, time.Minute)
	n := testing.AllocsPerRun(1000, func() {
		c, _ := g.Join(theKey, now)
		defer c.Abandon()
		c.Share("v")
	})
	assert.Zero(t, n)
}

// A call that was taken is led by whoever comes first.
func TestTakenCalls(t *testing.T) {
	key, now := []byte("key"), time.Now()
	take := func(t *testing.T) (*Group[int], Call[int]) {
		t.Helper()
		g := NewGroup[int]()
		taken, ok := g.Take(key, now)
		require.True(t, ok)
		_, ok = g.Take(key, now)
		assert.False(t, ok, "once")
		return g, taken
	}
	t.Run("led by who took it", func(t *testing.T) {
		g, taken := take(t)
		require.True(t, taken.Lead())
		assert.False(t, taken.Lead(), "once")
		follower, role := g.Join(key, now)
		require.Equal(t, Follow, role)
		taken.Share(7)
		v, outcome := follower.Wait(nil, 0)
		assert.Equal(t, Shared, outcome)
		assert.Equal(t, 7, v)
		taken.Done()
		assert.Zero(t, g.Stats().Calls)
	})
	t.Run("led by who joins", func(t *testing.T) {
		g, taken := take(t)
		leader, role := g.Join(key, now)
		require.Equal(t, Lead, role)
		assert.False(t, taken.Lead())
		taken.Share(1)
		taken.Abandon()
		follower, role := g.Join(key, now)
		require.Equal(t, Follow, role)
		leader.Abandon()
		assert.False(t, taken.Lead(), "it is the follower's")
		_, outcome := follower.Wait(nil, 0)
		assert.Equal(t, Promoted, outcome)
		follower.Refuse(now, 0)
		assert.Zero(t, g.Stats().Calls)
	})
	t.Run("led by nobody", func(t *testing.T) {
		g, taken := take(t)
		taken.Abandon()
		assert.Zero(t, g.Stats().Calls)
		assert.Zero(t, g.Stats().Abandoned)
		taken.Abandon()
		_, ok := g.Take(key, now)
		assert.True(t, ok)
	})
}
