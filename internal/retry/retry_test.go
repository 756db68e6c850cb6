package retry

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRepeatable(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, // safe, RFC 9110 §9.2.1
		"PUT": true, "DELETE": true, // idempotent, RFC 9110 §9.2.2
		"POST": false, "PATCH": false, "CONNECT": false,
		"get": false, "Put": false, // case-sensitive, RFC 9110 §9.1
		"": false, "PROPFIND": false, "GET ": false,
	} {
		require.Equal(t, want, Repeatable(method), "%q", method)
	}
}

func TestRetryStatus(t *testing.T) {
	t.Parallel()
	for code := range 1000 {
		require.Equal(t, code == 502 || code == 503 || code == 504, RetryStatus(code), "%d", code)
	}
}

func TestPurse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		max    int
		budget *Budget
		want   int // attempts in all
	}{
		{"three attempts", 3, nil, 3},
		{"one attempt", 1, nil, 1},
		{"the first is never refused", 0, nil, 1},
		{"nor with a negative number", -1, NewBudget(1, 1), 1},
		{"the budget is spent first", 5, NewBudget(0, 0.2), 3},
		{"the attempts are spent first", 3, NewBudget(0, 10), 3},
		{"no budget at all", 5, NewBudget(0, 0), 1},
		{"its own fetch counts", 5, NewBudget(1, 0), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := NewPurse(tt.max, tt.budget)
			require.Zero(t, p.Spent())
			p.First()
			require.Equal(t, 1, p.Spent())
			for p.Take() {
				require.LessOrEqual(t, p.Spent(), tt.want)
			}
			require.Equal(t, tt.want, p.Spent())
			require.False(t, p.Take())
			require.Equal(t, tt.want, p.Spent(), "a refusal costs nothing")
		})
	}
}

func TestReplaysCostTheBudgetNothing(t *testing.T) {
	t.Parallel()
	b := NewBudget(0, 10)
	p := NewPurse(2, b)
	p.First()
	for range maxReplays {
		require.True(t, p.Replay())
	}
	require.False(t, p.Replay())
	require.True(t, p.Take(), "which is another matter")
	require.False(t, p.Take())
	require.Equal(t, 2+maxReplays, p.Spent())
	_, retries, exhausted := b.Stats()
	require.Equal(t, []uint64{1, 0}, []uint64{retries, exhausted})

	once := NewPurse(1, b)
	once.First()
	require.False(t, once.Replay(), "it is sent once")
}

func TestRefusedAttemptDoesNotTouchTheBudget(t *testing.T) {
	t.Parallel()
	b := NewBudget(0, 10)
	p := NewPurse(2, b)
	p.First()
	require.True(t, p.Take())
	require.False(t, p.Take())
	fetches, retries, exhausted := b.Stats()
	require.Equal(t, []uint64{1, 1, 0}, []uint64{fetches, retries, exhausted})
}
