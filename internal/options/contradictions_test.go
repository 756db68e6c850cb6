package options

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func given(names ...string) map[string]bool {
	list := make(map[string]bool, len(names))
	for _, name := range names {
		list[name] = true
	}
	return list
}

// what returns the faults of a list, and what it displaces.
func what(list map[string]bool) (faults map[string][]string, displaced []string) {
	faults = make(map[string][]string)
	Contradictions(list, func(option, reason string) { faults[option] = append(faults[option], reason) })
	Displaced(list, func(option string) { displaced = append(displaced, option) })
	return faults, displaced
}

func TestEachPairContradictsItself(t *testing.T) {
	t.Parallel()
	seen := map[[2]string]bool{}
	for _, c := range contradictions {
		faults, displaced := what(given(c.one, c.other))
		assert.Contains(t, faults[c.other], c.reason+" ("+c.one+")")
		assert.NotContains(t, displaced, c.one)
		assert.NotContains(t, displaced, c.other)
		for _, name := range []string{c.one, c.other} {
			faults, _ = what(given(name))
			assert.Empty(t, faults, "alone it contradicts nothing")
			assert.True(t, strings.HasPrefix(name, "With"))
		}
		_, displaced = what(given(c.one))
		assert.Contains(t, displaced, c.other)
		_, displaced = what(given(c.other))
		assert.Contains(t, displaced, c.one)
		assert.False(t, seen[[2]string{c.one, c.other}] || seen[[2]string{c.other, c.one}], "%s and %s", c.one, c.other)
		seen[[2]string{c.one, c.other}] = true
	}
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		list      []string
		faults    map[string]int
		displaced []string // among others
	}{
		{"nothing", nil, map[string]int{}, nil},
		{"what knows no other", []string{"WithTimeout"}, map[string]int{}, nil},
		{"a feature and its refinement", []string{"WithRetries", "WithRetryBackoff"}, map[string]int{}, []string{"WithoutRetries"}},
		{"a refinement without its feature", []string{"WithoutRetries", "WithRetryBackoff", "WithRetryBudget"}, map[string]int{"WithoutRetries": 2}, []string{"WithRetries"}},
		{"connections beside a round tripper", []string{"WithTransport", "WithMaxConns", "WithHTTP2"}, map[string]int{"WithTransport": 2}, []string{"WithTLSConfig"}},
		{"connections of their own", []string{"WithMaxConns"}, map[string]int{}, []string{"WithTransport"}},
	} {
		faults, displaced := what(given(row.list...))
		got := map[string]int{}
		for option, reasons := range faults {
			got[option] = len(reasons)
		}
		assert.Equal(t, row.faults, got, row.name)
		assert.Subset(t, displaced, row.displaced, row.name)
	}
}
