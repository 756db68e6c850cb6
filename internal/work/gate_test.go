package work

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Each step is one letter: E enters, e is refused, L leaves, C closes, i asks
// for Idle and finds it open, I finds it closed.
func TestGate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, steps string
		inside      int64
	}{
		{"zero value is open", "i", 0},
		{"counts what is inside", "EEEiLi", 2},
		{"never idle while open, even empty", "ELi", 0},
		{"closed and empty is idle", "CI", 0},
		{"idle was asked for before", "iCI", 0},
		{"closed refuses", "Ce", 0},
		{"refusing after idle stays idle", "CIeeI", 0},
		{"idle with the last to leave", "EECiLiLI", 0},
		{"refusing does not count", "ECeei", 1},
		{"refused do not empty it", "EECeiLeiLI", 0},
		{"closing twice", "ECCiLICI", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var g Gate
			for i, step := range tt.steps {
				at := fmt.Sprintf("step %d %c", i, step)
				switch step {
				case 'E':
					require.True(t, g.Enter(), at)
				case 'e':
					require.False(t, g.Enter(), at)
				case 'L':
					g.Leave()
				case 'C':
					g.Close()
				case 'i':
					require.False(t, isClosed(g.Idle()), at)
				case 'I':
					require.True(t, isClosed(g.Idle()), at)
				}
			}
			assert.Equal(t, tt.inside, g.Inside())
		})
	}
}

func TestIdleIsOneChannel(t *testing.T) {
	t.Parallel()
	var g Gate
	before := g.Idle()
	g.Close()
	assert.Equal(t, before, g.Idle())
}

func TestLeaveWithoutEnterPanics(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { new(Gate).Leave() })
	assert.Panics(t, func() {
		var g Gate
		g.Close()
		g.Leave()
	})
}

// Nobody who entered is still inside when Idle closes, however the Close falls.
func TestGateIsEmptyWhenIdle(t *testing.T) {
	t.Parallel()
	for range 50 {
		var (
			g             Gate
			wg            sync.WaitGroup
			inside, wrong atomic.Int64
		)
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				for g.Enter() {
					inside.Add(1)
					if isClosed(g.Idle()) {
						wrong.Add(1)
					}
					inside.Add(-1)
					g.Leave()
				}
			})
		}
		wg.Go(func() {
			<-start
			g.Close()
			g.Close()
		})
		close(start)
		<-g.Idle()
		assert.Zero(t, inside.Load(), "inside after idle")
		wg.Wait()
		require.Zero(t, wrong.Load(), "idle seen from inside")
		require.Zero(t, g.Inside())
		require.False(t, g.Enter())
	}
}

func TestGateDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		return
	}
	var g Gate
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if g.Enter() {
			g.Leave()
		}
	}))
}

func BenchmarkGate(b *testing.B) {
	b.Run("goroutines=1", func(b *testing.B) {
		var g Gate
		b.ReportAllocs()
		for b.Loop() {
			g.Enter()
			g.Leave()
		}
	})
	b.Run("goroutines=procs", func(b *testing.B) {
		var g Gate
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				g.Enter()
				g.Leave()
			}
		})
	})
}
