package testnet

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
)

// LogRecorder is a slog.Handler that keeps every record, of any level, as a line of JSON. It is safe for concurrent use.
type LogRecorder struct {
	slog.Handler
	sink *sink
}

// NewLogRecorder makes an empty one.
func NewLogRecorder() *LogRecorder {
	s := &sink{}
	return &LogRecorder{slog.NewJSONHandler(s, &slog.HandlerOptions{Level: slog.Level(math.MinInt)}), s}
}

// Logger returns a logger that writes to it.
func (l *LogRecorder) Logger() *slog.Logger { return slog.New(l) }

// Text returns all lines as they were written.
func (l *LogRecorder) Text() string {
	l.sink.mu.Lock()
	defer l.sink.mu.Unlock()
	return l.sink.text.String()
}

// Records returns the lines decoded. A record that is not exactly one line of JSON fails the test.
func (l *LogRecorder) Records(t testing.TB) []map[string]any {
	t.Helper()
	var records []map[string]any
	for line := range strings.Lines(l.Text()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("testnet: log line %q: %v", line, err)
			continue
		}
		records = append(records, record)
	}
	return records
}

// Find returns the records whose message is msg.
func (l *LogRecorder) Find(t testing.TB, msg string) []map[string]any {
	t.Helper()
	return slices.DeleteFunc(l.Records(t), func(r map[string]any) bool { return r[slog.MessageKey] != msg })
}

type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// Occurs reports whether token occurs in text: plain in any case, in hex, or inside base64 of either alphabet at any offset. Use
// tokens of 12 characters or more, or base64 of something else will look like them.
func Occurs(text, token string) bool {
	text = strings.ToLower(text)
	forms := []string{token, hex.EncodeToString([]byte(token))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			coded := enc.EncodeToString(append(make([]byte, offset), token...))
			first := (offset*8 + 5) / 6           // characters that the bytes before share in
			last := (offset + len(token)) * 8 / 6 // those that no byte behind shares in
			forms = append(forms, coded[first:last])
		}
	}
	return slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(text, strings.ToLower(form)) })
}

// Confined fails the test for each of places, named texts, where token occurs and which is not among allowed.
func Confined(t testing.TB, token string, places map[string]string, allowed ...string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(places)) {
		if !slices.Contains(allowed, name) && Occurs(places[name], token) {
			t.Errorf("testnet: %s occurs in %s", token, name)
		}
	}
}
