package rfc9111

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func numbered(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("X-%d", i)
	}
	return strings.Join(names, ", ")
}

var varyTable = []struct {
	name     string
	lines    []string
	encoding string
	want     []string
	refused  bool
}{
	{name: "absent"},
	{name: "RFC 9110 §12.5.5 one name", lines: []string{"Accept"}, want: []string{"Accept"}},
	{name: "RFC 9110 §5.1 names in any case", lines: []string{"aCCEPT-lANGUAGE, ACCEPT"}, want: []string{"Accept", "Accept-Language"}},
	{name: "RFC 9110 §5.3 two lines are joined", lines: []string{"Origin", "Accept"}, want: []string{"Accept", "Origin"}},
	{name: "each name once", lines: []string{"Accept, accept", "ACCEPT"}, want: []string{"Accept"}},
	{name: "RFC 9110 §5.6.1.2 empty members", lines: []string{" ,\tAccept\t, ,", ""}, want: []string{"Accept"}},
	{name: "§4.1 a member * fails to match", lines: []string{"*"}, refused: true},
	{name: "§4.1 * among others", lines: []string{"Accept, *"}, refused: true},
	{name: "§4.1 * on the second line", lines: []string{"Accept", " * "}, refused: true},
	{name: "no name: a colon", lines: []string{"Foo:"}, refused: true},
	{name: "no name: two words", lines: []string{"Accept Origin"}, refused: true},
	{name: "no name: semicolons", lines: []string{"Accept; Origin"}, refused: true},
	{name: "no name: quotes", lines: []string{`"Accept"`}, refused: true},
	{name: "no name: beyond ASCII", lines: []string{"Accept\xff"}, refused: true},
	{name: "no name: NUL", lines: []string{"\x00"}, refused: true},
	{name: "16 names", lines: []string{numbered(16)}, want: strings.Split("X-0 X-1 X-10 X-11 X-12 X-13 X-14 X-15 X-2 X-3 X-4 X-5 X-6 X-7 X-8 X-9", " ")},
	{name: "17 names", lines: []string{numbered(17)}, refused: true},
	{name: "16 names and the implied one", lines: []string{numbered(16)}, encoding: "gzip", refused: true},
	{name: "1000 names", lines: []string{numbered(1000)}, refused: true},
	{name: "4 KiB of one name", lines: []string{strings.Repeat("Accept, ", 512)}, want: []string{"Accept"}},
	{name: "more than 4 KiB", lines: []string{strings.Repeat("Accept, ", 512), "A"}, refused: true},
	{name: "64 kB of nothing", lines: []string{strings.Repeat(",", 64<<10)}, refused: true},
	{name: "RFC 9110 §12.5.3 an encoding implies Accept-Encoding", encoding: "gzip", want: []string{"Accept-Encoding"}},
	{name: "RFC 9110 §12.5.3 an encoding and other names", lines: []string{"Origin"}, encoding: "br", want: []string{"Accept-Encoding", "Origin"}},
	{name: "RFC 9110 §12.5.3 stated and implied", lines: []string{"accept-encoding"}, encoding: "br", want: []string{"Accept-Encoding"}},
	{name: "RFC 9842 §6 an encoding by a dictionary implies which", encoding: "DCB", want: []string{"Accept-Encoding", "Available-Dictionary"}},
	{name: "RFC 9842 §6 among others", lines: []string{"available-dictionary"}, encoding: "gzip, dcz", want: []string{"Accept-Encoding", "Available-Dictionary"}},
	{name: "RFC 9110 §8.4 an empty list of encodings", encoding: " , "},
	{name: "Host is in no header", lines: []string{"Host"}, refused: true},
	{name: "RFC 9110 §7.6.3 Via is each hop's own", lines: []string{"via"}, refused: true},
	{name: "RFC 7239 Forwarded is each hop's own", lines: []string{"forwarded"}, refused: true},
	{name: "X-Forwarded-For is each hop's own", lines: []string{"Accept, x-forwarded-for"}, refused: true},
	{name: "X-Real-IP is each hop's own", lines: []string{"X-Real-IP"}, refused: true},
}

func TestParseVary(t *testing.T) {
	t.Parallel()
	for _, row := range varyTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Vary": row.lines}
			if row.encoding != "" {
				h["Content-Encoding"] = []string{row.encoding}
			}
			names, ok := ParseVary(h)
			assert.Equal(t, !row.refused, ok)
			assert.Equal(t, row.want, names)
		})
	}
}

// variantTable also seeds FuzzVariant. Lines are parted by "\n"; "-" is an absent field.
var variantTable = []struct {
	name, field, a, b string
	same              bool
}{
	{"§4.1 equal", "X-Any", "gzip", "gzip", true},
	{"§4.1 different", "X-Any", "gzip", "br", false},
	{"§4.1 values of unknown fields keep their case", "X-Any", "gzip", "GZIP", false},
	{"§4.1 white space at the ends", "X-Any", " a b\t", "a b", true},
	{"§4.1 white space within is not known to be without meaning", "X-Any", "a,b", "a, b", false},
	{"§4.1 several lines combined", "X-Any", "a\nb", "a, b", true},
	{"§4.1 an empty line is not known to be no member", "X-Any", "a\n", "a", false},
	{"§4.1 order is not known to be without meaning", "X-Any", "a, b", "b, a", false},
	{"§4.1 absent matches absent", "X-Any", "-", "-", true},
	{"§4.1 absent does not match present", "X-Any", "-", "gzip", false},
	{"§4.1 absent does not match empty", "X-Any", "-", "", false},
	{"§4.1 empty matches empty", "X-Any", "", " ", true},

	{"RFC 9110 §12.5.3 absent is any coding, empty is none", "Accept-Encoding", "-", "", false},
	{"RFC 9110 §12.5.3 empty and identity are not known to be treated alike", "Accept-Encoding", "identity", "", false},
	{"RFC 9110 §12.5.3 absent and *", "Accept-Encoding", "-", "*", false},
	{"RFC 9110 §8.4.1 codings in any case", "Accept-Encoding", "gzip", "GZip", true},
	{"RFC 9110 §5.6.3 white space around commas and semicolons", "Accept-Encoding", "gzip;q=0.5,br;q=0.1", "gzip ; q=0.5\t,  br; q=0.1", true},
	{"RFC 9110 §5.6.1.2 empty members", "Accept-Encoding", ",gzip,,\n, br\n", "gzip, br", true},
	{"RFC 9110 §5.3 lines", "Accept-Encoding", "gzip\nbr", "gzip, br", true},
	{"RFC 9110 §12.4.2 no weight is 1", "Accept-Encoding", "gzip;q=1, br;q=1.000", "gzip, br", true},
	{"RFC 9110 §12.4.2 zeros at the end", "Accept-Encoding", "gzip;q=0.50", "gzip;Q=0.5", true},
	{"RFC 9110 §12.4.2 0 is never", "Accept-Encoding", "gzip;q=0", "gzip", false},
	{"RFC 9110 §12.4.2 0 however written", "Accept-Encoding", "gzip;q=0.000", "gzip;q=0.", true},
	{"RFC 9110 §12.4.2 0 is not absence", "Accept-Encoding", "gzip, br;q=0", "gzip", false},
	{"RFC 9110 §12.4.2 other weights", "Accept-Encoding", "gzip;q=0.5", "gzip;q=0.501", false},
	{"RFC 9110 §12.4.2 the order of different weights", "Accept-Encoding", "*;q=0.1, br, gzip;q=0.5", "br, gzip;q=0.5, *;q=0.1", true},
	{"RFC 9110 §12.5.3 the order of like weights", "Accept-Encoding", "gzip, br", "br, gzip", true},
	{"RFC 9110 §12.5.3 the order of like weights among others", "Accept-Encoding", "x;q=0.1, gzip, br;q=0.1", "gzip, br;q=0.1, x;q=0.1", true},
	{"the order of one member's weights", "Accept-Encoding", "gzip;q=0.1, gzip", "gzip, gzip;q=0.1", false},
	{"a weight that breaks the grammar", "Accept-Encoding", "gzip;q=1.001", "gzip", false},
	{"a weight of four digits", "Accept-Encoding", "gzip;q=0.5000", "gzip;q=0.5", false},
	{"a weight without a digit", "Accept-Encoding", "gzip;q=.5", "gzip;q=0.5", false},
	{"a broken field as it came", "Accept-Encoding", "gzip br", "gzip br", true},
	{"a broken field in its case", "Accept-Encoding", "gzip br", "GZIP br", false},
	{"24 members", "Accept-Encoding", numbered(24), strings.ToLower(numbered(24)), true},
	{"more than 24 members are not read", "Accept-Encoding", numbered(25), strings.ToLower(numbered(25)), false},

	{"RFC 9110 §12.5.4 tags in any case", "Accept-Language", "en-GB, en;q=0.7", "EN-gb,en;q=0.70", true},
	{"RFC 9110 §12.5.4 order", "Accept-Language", "de;q=0.3, en", "en, de;q=0.3", true},
	{"RFC 9110 §12.5.4 the order of like weights, which some take for a priority", "Accept-Language", "de, en", "en, de", false},
	{"RFC 9110 §12.5.4 the order of like weights among others", "Accept-Language", "x;q=0.1, de, en", "de, x;q=0.1, en", true},
	{"RFC 9110 §12.5.4 other tags", "Accept-Language", "en-GB", "en", false},
	{"RFC 9110 §12.5.2 charsets in any case", "Accept-Charset", "UTF-8", "utf-8;q=1", true},
	{"RFC 9110 §12.5.2 the order of like weights", "Accept-Charset", "a, utf-8;q=0.1, iso-8859-1;q=0.1", "a, iso-8859-1;q=0.1, utf-8;q=0.1", true},

	{"RFC 9110 §8.3.1 types in any case", "Accept", "Text/HTML", "text/html", true},
	{"RFC 9110 §5.6.6 names of parameters in any case", "Accept", "text/html;Level=1", "text/html; level=1", true},
	{"RFC 9110 §5.6.6 values of parameters may depend on case", "Accept", "text/html;a=B", "text/html;a=b", false},
	{"RFC 9110 §12.5.1 a quoted comma", "Accept", `text/html;a="x, y"`, `text/html;a="x,y"`, false},
	{"RFC 9110 §12.5.1 a quoted weight", "Accept", `text/html;a=";q=0.1, x/y"`, `text/html;a=";q=0.1,x/y"`, false},
	{"RFC 9110 §12.5.1 order", "Accept", "*/*;q=0.8,text/html;level=1;q=0.90", "text/html; level=1; q=0.9, */*; q=0.8", true},
	{"RFC 9110 §12.5.1 other parameters", "Accept", "text/html;level=1", "text/html;level=2", false},
	{"a parameter behind the weight", "Accept", "text/html;q=0.5;a=B", "text/html;q=0.50;a=B", false},
	{"no media range", "Accept", "text", "TEXT", false},
	{"no subtype", "Accept", "text/", "TEXT/", false},
	{"no value of a parameter", "Accept", "text/html;A", "text/html;a", false},
	{"an open quote of a parameter", "Accept", `text/html;A="x`, `text/html;a="x`, false},

	{"a list's white space", "Access-Control-Request-Headers", "x-a,x-b", "x-a , x-b", true},
	{"a list's lines", "Prefer", "a\nb", "a,b", true},
	{"a list's order", "Prefer", "a, b", "b, a", false},
	{"a list's case", "Prefer", "a", "A", false},
	{"a list's quoted comma", "Sec-Ch-Ua", `"a, b";v="1"`, `"a,b";v="1"`, false},
	{"a list's quotes", "Sec-Ch-Ua", `"a, b";v="1" , "c"`, `"a, b";v="1","c"`, true},
	{"a list's open quote", "Sec-Ch-Ua", `"a , b`, `"a, b`, false},
}

// fieldOf returns a header with the field that a row gives.
func fieldOf(name, lines string) http.Header {
	if lines == "-" {
		return http.Header{}
	}
	return http.Header{name: strings.Split(lines, "\n")}
}

func TestVariants(t *testing.T) {
	t.Parallel()
	for _, row := range variantTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			names := []string{row.field}
			a, b := fieldOf(row.field, row.a), fieldOf(row.field, row.b)
			assert.Equal(t, row.same, MatchVariant(AppendVariant(nil, names, a), names, b))
			assert.Equal(t, row.same, MatchVariant(AppendVariant(nil, names, b), names, a))
		})
	}
}

func TestVariantsAreSpelledOneWay(t *testing.T) {
	t.Parallel()
	for field, forms := range map[string][2]string{
		"Accept-Encoding": {"BR;q=0.25 , x;q=0.050, gzip;q=1.0, y;Q=0.", "gzip,br;q=0.25,x;q=0.05,y;q=0,"},
		"Accept":          {`*/*;q=0.1, Text/HTML; Level="A, b" ;q=0.125`, `text/html;level="A, b";q=0.125,*/*;q=0.1,`},
		"Prefer":          {"a , b", "a,b"},
		"X-Any":           {" a , b ", "a , b"},
	} {
		assert.Equal(t, forms[1], string(appendValue(nil, field, []string{forms[0]})))
		assert.Equal(t, forms[1], string(appendValue(nil, field, []string{forms[1]})))
	}
}

func TestVariantsOfOtherNamesDiffer(t *testing.T) {
	t.Parallel()
	h := http.Header{"A": {"1"}, "B": {"1"}}
	assert.True(t, MatchVariant(nil, nil, h), "§4.1: without Vary any request matches")
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), nil, h))
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), []string{"B"}, h))
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), []string{"A", "B"}, h))
	long := http.Header{"A": {strings.Repeat("x", 64<<10)}}
	assert.True(t, MatchVariant(AppendVariant(nil, []string{"A"}, long), []string{"A"}, long))
}

// meaning is the plain model of what AppendVariant compares, by the tools of the standard library.
func meaning(field string, lines []string) string {
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	raw := strings.Join(trimmed, ", ")
	if field != "Accept-Encoding" {
		return raw
	}
	type member struct {
		name   string
		weight float64
	}
	var members []member
	grammar := regexp.MustCompile(`^([!#$%&'*+.^_|~0-9A-Za-z\x60-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?$`)
	names := map[string]bool{}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.Trim(part, " \t"); part == "" {
				continue
			}
			found := grammar.FindStringSubmatch(part)
			if found == nil || len(members) == maxRanked {
				return "raw " + raw
			}
			m := member{strings.ToLower(found[1]), 1}
			if found[2] != "" {
				m.weight, _ = strconv.ParseFloat(found[2], 64)
			}
			names[m.name] = true
			members = append(members, m)
		}
	}
	if len(names) == len(members) {
		slices.SortFunc(members, func(a, b member) int {
			return cmp.Or(cmp.Compare(b.weight, a.weight), strings.Compare(a.name, b.name))
		})
	}
	return fmt.Sprint("ranked ", members)
}

func FuzzVariant(f *testing.F) {
	for _, row := range variantTable {
		f.Add(row.a, row.b)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, field := range []string{"X-Any", "Accept-Encoding", "Accept", "Prefer"} {
			one, two := http.Header{field: strings.Split(a, "\n")}, http.Header{field: strings.Split(b, "\n")}
			names := []string{field}
			stored := AppendVariant(nil, names, one)
			require.True(t, MatchVariant(stored, names, one))
			same := MatchVariant(stored, names, two)
			if field == "X-Any" || field == "Accept-Encoding" {
				require.Equal(t, meaning(field, one[field]) == meaning(field, two[field]), same, field)
			}
			if same { // the same bytes are there
				require.Equal(t, letters(a), letters(b), field)
			}
			if len(one[field]) > 1 { // which together may be what none is
				continue
			}
			again := string(appendValue(nil, field, one[field]))
			require.Equal(t, strings.Trim(again, " \t"), string(appendValue(nil, field, []string{again})), "the common form is in the common form")
		}
	})
}

// letters returns the bytes of s that no normalisation removes, in lower case, sorted; without weights.
func letters(s string) string {
	s = regexp.MustCompile(`;[ \t]*[qQ]=[01](\.[0-9]*)?`).ReplaceAllString(s, "")
	b := bytes.ToLower([]byte(strings.NewReplacer(" ", "", "\t", "", "\n", "", ",", "").Replace(s)))
	slices.Sort(b)
	return string(b)
}

func FuzzVary(f *testing.F) {
	for _, row := range varyTable {
		f.Add(strings.Join(row.lines, "\n"), row.encoding, "gzip", "gzip\nbr")
	}
	f.Add("A, B", "", "\x01", "\x00\x01")
	f.Fuzz(func(t *testing.T, vary, encoding, a, b string) {
		names, ok := ParseVary(http.Header{"Vary": strings.Split(vary, "\n"), "Content-Encoding": {encoding}})
		if !ok {
			require.Nil(t, names)
			return
		}
		require.LessOrEqual(t, len(names), maxVaryNames)
		require.True(t, slices.IsSorted(names))
		again, ok := ParseVary(http.Header{"Vary": {strings.Join(names, ", ")}})
		require.True(t, ok)
		require.Equal(t, names, again)
		if len(names) == 0 {
			return
		}
		one, two := http.Header{}, http.Header{}
		one[names[0]], two[names[len(names)-1]] = strings.Split(a, "\n"), strings.Split(b, "\n")
		match := MatchVariant(AppendVariant(nil, names, one), names, two)
		if len(names) > 1 {
			require.False(t, match, "absent does not match present")
		} else if a == b {
			require.True(t, match)
		}
		require.True(t, MatchVariant(AppendVariant(nil, names, one), names, one))
	})
}

func BenchmarkMatchVariant(b *testing.B) {
	for _, row := range []struct{ name, field, value string }{
		{"encoding", "Accept-Encoding", "gzip, deflate, br"},
		{"weights", "Accept-Encoding", "gzip;q=0.5, deflate;q=0.1, br"},
		{"language", "Accept-Language", browser.Get("Accept-Language")},
		{"accept", "Accept", browser.Get("Accept")},
		{"agent", "User-Agent", browser.Get("User-Agent")},
		{"hostile", "Accept-Encoding", strings.Repeat("gzip;q=0.123,\t", 20) + "a"},
	} {
		b.Run("field="+row.name, func(b *testing.B) {
			names, h := []string{row.field}, http.Header{row.field: {row.value}}
			stored := AppendVariant(nil, names, h)
			b.ReportAllocs()
			for b.Loop() {
				MatchVariant(stored, names, h)
			}
		})
	}
}

func TestDecodable(t *testing.T) { // RFC 9110 §12.5.3
	t.Parallel()
	for _, row := range []struct {
		encoding string
		accept   []string
		want     bool
	}{
		{"", nil, true},
		{"", []string{"gzip"}, true},
		{"gzip", nil, false},
		{"gzip", []string{""}, false},
		{"gzip", []string{"gzip"}, true},
		{"GZip", []string{"br, gZIP;q=0.5"}, true},
		{"gzip", []string{"br", "gzip"}, true},
		{"gzip", []string{"br"}, false},
		{"gzip", []string{"gzip;q=0"}, false},
		{"gzip", []string{"gzip;q=0.000, *"}, false},
		{"gzip", []string{"gzip;q=x"}, false},
		{"gzip", []string{"gzipped"}, false},
		{"gzip", []string{"*"}, false}, // it does not say that it knows this one
		{"gzip, br", []string{"br, gzip"}, true},
		{"gzip, br", []string{"br"}, false},
		{"dcz", []string{"dcz"}, false}, // whose dictionary?
	} {
		assert.Equal(t, row.want, decodable(http.Header{"Accept-Encoding": row.accept}, row.encoding), "%q by %q", row.encoding, row.accept)
	}
}
