package e2e_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestCases runs the attack and fault cases, one sub-test for each alternative
// of a case.
func TestCases(t *testing.T) {
	for _, c := range allCases() {
		t.Run(c.name(), c.run)
	}
}

// TestCasesCoverTheList compares the sub-tests with the list of what must be
// covered.
func TestCasesCoverTheList(t *testing.T) {
	covered, names := make(map[int]int), make(map[string]bool)
	for _, c := range allCases() {
		assert.False(t, names[c.name()], "%q twice", c.name())
		names[c.name()] = true
		covered[c.row]++
	}
	for row, alternatives := range caseRows {
		assert.GreaterOrEqual(t, covered[row], alternatives, "row %d has %d alternatives", row, alternatives)
	}
}

func allCases() []attackCase {
	return slices.Concat(
		framingCases(), targetCases(), identityCases(), upgradeCases(), upstreamCases(),
		cacheCases(), retryCases(), leakCases(), observabilityCases(), lifecycleCases(),
		deadCases(), http2Cases(), replicaCases(), clientCases(),
	)
}

// attackCase is one alternative of one row.
type attackCase struct {
	row  int
	what string
	run  func(t *testing.T)
}

func (c attackCase) name() string { return caseName(c.row, c.what) }

// caseRows are the rows that must be covered, with how many alternatives each
// has at least.
var caseRows = map[int]int{
	1: 1, 3: 2, 5: 8, 7: 8, 9: 8, 11: 1, 13: 6, 15: 3, 17: 1, 19: 4,
	21: 4, 23: 1, 25: 3, 27: 3, 29: 1, 31: 3, 33: 1, 35: 2, 37: 3,
	39: 5, 41: 3, 43: 1, 45: 6, 47: 4, 49: 2,
	51: 1, 53: 1, 55: 1, 57: 2, 59: 4, 61: 2, 63: 2,
	65: 2, 67: 4, 69: 6, 71: 4, 73: 1, 75: 3, 77: 1, 79: 1, 81: 1, 83: 3, 85: 6, 87: 5,
	89: 4, 91: 1, 93: 8, 95: 4, 97: 1, 99: 3, 101: 5, 103: 2, 105: 2, 107: 5, 109: 5, 111: 4, 113: 2, 115: 10, 117: 3, 119: 2,
	121: 1, 123: 3, 125: 1, 127: 4, 129: 3, 131: 1, 133: 1, 135: 2, 137: 3, 139: 2, 141: 1,
	143: 5, 145: 3, 149: 1, 151: 5,
	153: 1, 155: 4, 157: 5,
	161: 2, 163: 3, 165: 1, 167: 1, 169: 1, 171: 4, 173: 1,
}

func caseName(row int, what string) string { return strconv.Itoa(row) + "/" + what }
