package options

import "reflect"

// Alike takes values that cannot be compared, such as functions, for the same if
// their type is.
func Alike(a, b any) bool {
	if a == nil || b == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return a == nil && b == nil
	}
	return !reflect.ValueOf(a).Comparable() || Same(a, b)
}

// Same reports whether two values are equal, as far as they can be compared.
func Same(a, b any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// IsNil reports whether an interface has nothing in it, or a nil pointer or function.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	of := reflect.ValueOf(v)
	return (of.Kind() == reflect.Pointer || of.Kind() == reflect.Func) && of.IsNil()
}
