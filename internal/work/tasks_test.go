package work

import (
	"errors"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTasksAreNamedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTasks(nil)
		assert.Empty(t, ts.Running())
		end := make(chan struct{})
		for _, name := range []string{"fill", "fill", "probe"} {
			require.True(t, ts.Go(name, func() { <-end }))
		}
		require.True(t, ts.Go("short", func() {}))
		synctest.Wait()
		running := ts.Running()
		assert.Equal(t, map[string]int{"fill": 2, "probe": 1}, running)
		running["fill"] = 9
		assert.Equal(t, 2, ts.Running()["fill"], "the map is a copy")

		ts.Close()
		require.False(t, ts.Go("late", func() { t.Error("ran after Close") }))
		assert.False(t, isClosed(ts.Idle()))
		close(end)
		<-ts.Idle()
		assert.Empty(t, ts.Running())
	})
}

func TestIdleWaitsForSlowTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTasks(nil)
		ts.Go("slow", func() { time.Sleep(time.Minute) })
		ts.Close()
		start := time.Now()
		<-ts.Idle()
		assert.Equal(t, time.Minute, time.Since(start))
	})
}

func TestPanicsAreRecoveredAndReportedOnce(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		name string
		f    func()
		want any // nil: not reported
	}{
		{"error", func() { panic(boom) }, boom},
		{"string", func() { panic("s") }, "s"},
		{"abort of a handler", func() { panic(http.ErrAbortHandler) }, http.ErrAbortHandler},
		{"return", func() {}, nil},
		{"goexit", runtime.Goexit, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			type report struct {
				name  string
				v     any
				stack string
			}
			var got []report
			ts := NewTasks(func(name string, v any, stack []byte) {
				got = append(got, report{name, v, string(stack)})
			})
			require.True(t, ts.Go("task", tt.f))
			ts.Close()
			<-ts.Idle()
			assert.Empty(t, ts.Running())
			if tt.want == nil {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			assert.Equal(t, "task", got[0].name)
			assert.Equal(t, tt.want, got[0].v)
			assert.Contains(t, got[0].stack, "TestPanicsAreRecovered", "the stack leads to the panic")
		})
	}
}

func TestPanicsWithoutAValueOrFunction(t *testing.T) {
	t.Parallel()
	var reports atomic.Int64
	ts := NewTasks(func(string, any, []byte) { reports.Add(1) })
	var none any
	ts.Go("nil", func() { panic(none) })
	ts.Go("no function", nil)
	ts.Close()
	<-ts.Idle()
	assert.EqualValues(t, 2, reports.Load())
}

func TestReportThatPanicsIsSurvived(t *testing.T) {
	t.Parallel()
	var reports atomic.Int64
	ts := NewTasks(func(string, any, []byte) {
		reports.Add(1)
		panic("report")
	})
	ts.Go("task", func() { panic("task") })
	ts.Close()
	<-ts.Idle()
	assert.EqualValues(t, 1, reports.Load())
	assert.Empty(t, ts.Running())
}

func TestUnreportedPanicIsSurvived(t *testing.T) {
	t.Parallel()
	ts := NewTasks(nil)
	ts.Go("task", func() { panic("task") })
	ts.Close()
	<-ts.Idle()
	assert.Empty(t, ts.Running())
}

// Every task that Go accepted has run by the time Idle closes, and no other.
func TestTasksUnderConcurrentClose(t *testing.T) {
	t.Parallel()
	for range 20 {
		ts := NewTasks(nil)
		var accepted, ran atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ts.Go("t", func() { ran.Add(1) }) {
					accepted.Add(1)
				}
			})
		}
		wg.Go(ts.Close)
		wg.Wait()
		<-ts.Idle()
		require.Equal(t, accepted.Load(), ran.Load())
		require.Empty(t, ts.Running())
	}
}

func BenchmarkTasksGo(b *testing.B) {
	ts := NewTasks(nil)
	done := make(chan struct{})
	f := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		ts.Go("task", f)
		<-done
	}
	ts.Close()
	<-ts.Idle()
}
