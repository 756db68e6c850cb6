package options

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

type empty struct{}

func TestEqualValues(t *testing.T) {
	t.Parallel()
	f, g := func() int { return 1 }, func() int { return 2 }
	p, q := new(int), new(int)
	var nothing any
	for _, row := range []struct {
		name        string
		a, b        any
		same, alike bool
	}{
		{"nothing", nil, nil, true, true},
		{"nothing and something", nil, 1, false, false},
		{"something and nothing", p, nothing, false, false},
		{"equal values", 1, 1, true, true},
		{"other values", 1, 2, false, false},
		{"other types", 1, int64(1), false, false},
		{"one pointer", p, p, true, true},
		{"two pointers", p, q, false, false},
		{"equal structs", empty{}, empty{}, true, true},
		{"one function", f, f, false, true},
		{"two functions", f, g, false, true},
		{"functions of other types", f, func() {}, false, false},
		{"structs that hold functions", struct{ f any }{f}, struct{ f any }{g}, false, true},
		{"slices", []int{1}, []int{1}, false, true},
	} {
		assert.Equal(t, row.same, Same(row.a, row.b), row.name)
		assert.Equal(t, row.alike, Alike(row.a, row.b), row.name)
		assert.Equal(t, row.same, Same(row.b, row.a), row.name)
		assert.Equal(t, row.alike, Alike(row.b, row.a), row.name)
	}
}

func TestIsNil(t *testing.T) {
	t.Parallel()
	var pointer *int
	var function func()
	var err error
	for _, v := range []any{nil, pointer, function, err} {
		assert.True(t, IsNil(v), "%T", v)
	}
	for _, v := range []any{new(int), func() {}, empty{}, 0, "", errors.New("x")} {
		assert.False(t, IsNil(v), "%T", v)
	}
}
