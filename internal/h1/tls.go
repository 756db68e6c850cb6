package h1

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"reflect"
)

// SameTLS reports whether connections of two configurations may stand in for
// each other; nil is the default. Functions cannot be compared: they are taken
// to be the same where alike says that both configurations are copies of one.
// Caches and writers are the same if they are one: what is in them is in use.
func SameTLS(a, b *tls.Config, alike bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range va.NumField() {
		if va.Type().Field(i).IsExported() && !sameField(va.Field(i), vb.Field(i), alike) {
			return false
		}
	}
	return true
}

func sameField(a, b reflect.Value, alike bool) bool {
	switch a.Kind() {
	case reflect.Func:
		return a.IsNil() == b.IsNil() && (a.IsNil() || alike)
	case reflect.Interface:
		return a.Comparable() && b.Comparable() && a.Equal(b)
	}
	switch one := a.Interface().(type) {
	case *x509.CertPool:
		other, _ := reflect.TypeAssert[*x509.CertPool](b)
		return one == other || one != nil && other != nil && one.Equal(other)
	case []tls.Certificate:
		other, _ := reflect.TypeAssert[[]tls.Certificate](b)
		if len(one) != len(other) {
			return false
		}
		for i := range one {
			if !sameCertificate(&one[i], &other[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// sameCertificate looks at what is sent, and at the key.
func sameCertificate(a, b *tls.Certificate) bool {
	if !reflect.DeepEqual(a.Certificate, b.Certificate) {
		return false
	}
	if key, ok := a.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }); ok {
		return key.Equal(b.PrivateKey)
	}
	return reflect.DeepEqual(a.PrivateKey, b.PrivateKey)
}
