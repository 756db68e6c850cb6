package telemetry

import "strings"

const redacted = "REDACTED"

// cut bounds what is read of a path or of a query.
func cut(s string) string { return s[:min(len(s), maxURL)] }

// RedactQuery returns a query as it is shown: without credentials, and shortened.
func RedactQuery(query string) string { return text(redactQuery(cut(query)), maxURL) }

// redactQuery replaces the values of parameters that carry credentials. Keys
// are compared as an upstream would read them, percent-decoded; both & and ;
// may begin one, and only & ends a value, so a doubt hides too much.
func redactQuery(query string) string {
	var b strings.Builder
	done := 0 // query[:done] is in b
	for i := 0; i < len(query); {
		assigned, end := parameter(query, i)
		if from := assigned + 1; from < end && sensitive(query[i:assigned]) {
			if n := strings.IndexByte(query[from:], '&'); n >= 0 {
				end = from + n
			} else {
				end = len(query)
			}
			b.WriteString(query[done:from])
			b.WriteString(redacted)
			done = end
		}
		i = end + 1
	}
	if done == 0 {
		return query
	}
	b.WriteString(query[done:])
	return b.String()
}

// parameter returns where the parameter ends that begins at i, and where its name
// does.
func parameter(query string, i int) (assigned, end int) {
	assigned = -1
	for end = i; end < len(query) && query[end] != '&' && query[end] != ';'; end++ {
		if query[end] == '=' && assigned < 0 {
			assigned = end
		}
	}
	if assigned < 0 {
		assigned = end
	}
	return assigned, end
}

// sensitive reports whether a parameter's value is, or may be, a credential:
// the conventions' own list (X-Amz-Signature, X-Amz-Credential,
// X-Amz-Security-Token, sig, X-Goog-Signature) and its relatives, in any case
// and however their words are joined.
func sensitive(key string) bool {
	var short [32]byte
	name := string(fold(short[:0], key))
	switch name {
	case "sig", "hmac", "auth", "key", "code", "pass", "pwd", "pin", "otp", "sid",
		"policy", "assertion", "samlresponse", "keypairid", "googleaccessid":
		return true
	}
	if strings.HasPrefix(name, "xamz") || strings.HasPrefix(name, "xgoog") {
		return true
	}
	return telling(name)
}

// telling reports whether a folded name says by itself, outside of a query too,
// that what it names is a credential.
func telling(name string) bool {
	for i := range len(name) {
		if beginsSecret(name[i:]) {
			return true
		}
	}
	return false
}

// beginsSecret reports whether one of the words that make a name sensitive stands
// at the beginning of what is left of it. Most names have none of their letters in
// the right place, and are done with soon.
func beginsSecret(s string) bool {
	switch s[0] {
	case 'a':
		return strings.HasPrefix(s, "apikey") || strings.HasPrefix(s, "accesskey") || strings.HasPrefix(s, "authorization")
	case 'c':
		return strings.HasPrefix(s, "credential")
	case 'j':
		return strings.HasPrefix(s, "jwt")
	case 'p':
		return strings.HasPrefix(s, "passw") || strings.HasPrefix(s, "passphrase") || strings.HasPrefix(s, "privatekey")
	case 's':
		return strings.HasPrefix(s, "secret") || strings.HasPrefix(s, "signature") || strings.HasPrefix(s, "session")
	case 't':
		return strings.HasPrefix(s, "token")
	}
	return false
}

// fold appends the letters and digits of a parameter's name, percent-decoded
// and in lower case.
func fold(b []byte, key string) []byte {
	for i := 0; i < len(key); i++ {
		c := key[i]
		if c == '%' && i+2 < len(key) && isHex(key[i+1]) && isHex(key[i+2]) {
			c = unhex(key[i+1])<<4 | unhex(key[i+2])
			i += 2
		}
		switch {
		case 'A' <= c && c <= 'Z':
			b = append(b, c|0x20)
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		}
	}
	return b
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
