package forward

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse reads a request as net/http's server does, or returns nil where the server answers 400 itself.
func parse(head string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return nil
	}
	return r
}

// allocations fails the test if f allocates more than want times a run.
func allocations(t *testing.T, want float64, f func()) {
	t.Helper()
	if raceEnabled {
		return
	}
	if got := testing.AllocsPerRun(200, f); got > want {
		t.Errorf("%v allocations, want at most %v", got, want)
	}
}
