package rfc9111

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestInvalidates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		methods []string
		status  []int
		want    bool
	}{
		{"§4.4 unsafe methods, non-error", []string{"POST", "PUT", "DELETE", "PATCH"}, []int{200, 201, 204, 299, 300, 303, 307, 399}, true},
		{"§4.4 unsafe methods, error", []string{"POST", "PUT", "DELETE"}, []int{400, 404, 412, 500, 503, 599}, false},
		{"§4.4 no final status", []string{"POST"}, []int{0, 100, 103, 199, 600, 999}, false},
		{"§4.4 methods of unknown safety", []string{"PURGE", "PROPPATCH", "get", ""}, []int{200, 302}, true},
		{"RFC 9110 §9.2.1 safe methods", []string{"GET", "HEAD", "OPTIONS", "TRACE"}, []int{200, 304, 500}, false},
	} {
		for _, method := range row.methods {
			for _, status := range row.status {
				assert.Equal(t, row.want, Invalidates(method, status), "%s: %s %d", row.name, method, status)
			}
		}
	}
}
