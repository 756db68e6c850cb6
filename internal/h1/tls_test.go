package h1

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSameTLS(t *testing.T) {
	t.Parallel()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	pool := func(subject string) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(&x509.Certificate{Raw: []byte(subject), RawSubject: []byte(subject)})
		return p
	}
	verify := func(tls.ConnectionState) error { return nil }
	one, two := key(), key()
	cert := func(der string, k *ecdsa.PrivateKey) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{[]byte(der)}, PrivateKey: k}}}
	}
	withLeaf := cert("a", one)
	withLeaf.Certificates[0].Leaf = &x509.Certificate{Raw: []byte("a")}
	copied := *one
	cache, keys := tls.NewLRUClientSessionCache(1), new(bytes.Buffer)
	for _, tt := range []struct {
		name  string
		a, b  *tls.Config
		alike bool
		want  bool
	}{
		{"none", nil, nil, false, true},
		{"one", &tls.Config{}, nil, false, false},
		{"the other", nil, &tls.Config{}, false, false},
		{"both empty", &tls.Config{}, &tls.Config{}, false, true},
		{"names", &tls.Config{ServerName: "a"}, &tls.Config{ServerName: "b"}, true, false},
		{"versions", &tls.Config{MinVersion: tls.VersionTLS12}, &tls.Config{MinVersion: tls.VersionTLS13}, true, false},
		{"equal lists", &tls.Config{CipherSuites: []uint16{1, 2}}, &tls.Config{CipherSuites: []uint16{1, 2}}, false, true},
		{"other lists", &tls.Config{CipherSuites: []uint16{1, 2}}, &tls.Config{CipherSuites: []uint16{2, 1}}, true, false},
		{"verification", &tls.Config{}, &tls.Config{InsecureSkipVerify: true}, true, false},
		{"equal roots", &tls.Config{RootCAs: pool("a")}, &tls.Config{RootCAs: pool("a")}, false, true},
		{"other roots", &tls.Config{RootCAs: pool("a")}, &tls.Config{RootCAs: pool("b")}, true, false},
		{"no roots", &tls.Config{RootCAs: pool("a")}, &tls.Config{}, true, false},
		{"equal certificates", cert("a", one), cert("a", &copied), false, true},
		{"a parsed certificate", cert("a", one), withLeaf, false, true},
		{"another certificate", cert("a", one), cert("b", one), true, false},
		{"another key", cert("a", one), cert("a", two), true, false},
		{"no certificate", cert("a", one), &tls.Config{}, true, false},
		{"one cache", &tls.Config{ClientSessionCache: cache}, &tls.Config{ClientSessionCache: cache}, false, true},
		{"two caches", &tls.Config{ClientSessionCache: cache}, &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1)}, true, false},
		{"one log of keys", &tls.Config{KeyLogWriter: keys}, &tls.Config{KeyLogWriter: keys}, false, true},
		{"two logs of keys", &tls.Config{KeyLogWriter: keys}, &tls.Config{KeyLogWriter: new(bytes.Buffer)}, true, false},
		{"a log that cannot be compared", &tls.Config{KeyLogWriter: logs{}}, &tls.Config{KeyLogWriter: logs{}}, false, false},
		{"no functions", &tls.Config{}, &tls.Config{VerifyConnection: verify}, true, false},
		{"functions of two", &tls.Config{VerifyConnection: verify}, &tls.Config{VerifyConnection: verify}, false, false},
		{"functions of one", &tls.Config{VerifyConnection: verify}, &tls.Config{VerifyConnection: verify}, true, true},
	} {
		assert.Equal(t, tt.want, SameTLS(tt.a, tt.b, tt.alike), tt.name)
		assert.Equal(t, tt.want, SameTLS(tt.b, tt.a, tt.alike), tt.name+", the other way round")
		assert.Equal(t, tt.want, SameTLS(tt.a.Clone(), tt.b.Clone(), tt.alike), tt.name+", copied")
	}
}

type logs []int

func (logs) Write(p []byte) (int, error) { return len(p), nil }

// What a configuration refers to is in use, by the handshakes under way.
func TestSameTLSLooksIntoNothing(t *testing.T) {
	t.Parallel()
	one, two := tls.NewLRUClientSessionCache(8), tls.NewLRUClientSessionCache(8)
	var handshakes sync.WaitGroup
	handshakes.Go(func() {
		for i := range 1000 {
			one.Put(strconv.Itoa(i), &tls.ClientSessionState{})
		}
	})
	for range 1000 {
		SameTLS(&tls.Config{ClientSessionCache: one}, &tls.Config{ClientSessionCache: two}, true)
	}
	handshakes.Wait()
}
