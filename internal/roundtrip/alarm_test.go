package roundtrip

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAlarm(t *testing.T) {
	type set struct{ at, due time.Duration } // both since start
	for _, test := range []struct {
		name  string
		sets  []set
		rings time.Duration // 0: never
	}{
		{"never set", nil, 0},
		{"once", []set{{0, 3 * time.Second}}, 3 * time.Second},
		{"later", []set{{0, 3 * time.Second}, {time.Second, 8 * time.Second}}, 8 * time.Second},
		{"later twice", []set{{0, 3 * time.Second}, {time.Second, 5 * time.Second}, {4 * time.Second, 9 * time.Second}}, 9 * time.Second},
		{"earlier", []set{{0, 3 * time.Second}, {time.Second, 2 * time.Second}}, 2 * time.Second},
		{"later, then earlier than that", []set{{0, 3 * time.Second}, {time.Second, 8 * time.Second}, {4 * time.Second, 5 * time.Second}}, 5 * time.Second},
		{"silenced", []set{{0, 3 * time.Second}, {time.Second, never}}, 0},
		{"silenced and set again", []set{{0, 3 * time.Second}, {time.Second, never}, {4 * time.Second, 6 * time.Second}}, 6 * time.Second},
		{"set to the past", []set{{time.Second, time.Millisecond}}, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var rang []time.Duration
				var a alarm
				a.start(start, func() { rang = append(rang, time.Since(start)) })
				for _, s := range test.sets {
					time.Sleep(s.at - time.Since(start))
					a.set(s.due)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if test.rings == 0 {
					require.Empty(t, rang)
					return
				}
				require.Equal(t, []time.Duration{test.rings}, rang)
			})
		})
	}
}

func TestStoppedAlarmDoesNotRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a alarm
		a.start(time.Now(), func() { t.Error("it rang") })
		a.stop()
		a.set(time.Second)
		a.stop()
		time.Sleep(time.Minute)
	})
}
