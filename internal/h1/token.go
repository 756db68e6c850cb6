package h1

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if upperToken[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}
