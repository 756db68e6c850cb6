package rfc9111

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// render writes a value down.
func (v sfValue) render() string {
	switch v.kind {
	case sfInteger, sfBoolean, sfDate:
		return fmt.Sprintf("%d:%d", v.kind, v.integer)
	case sfString, sfToken:
		return fmt.Sprintf("%d:%q", v.kind, v.text)
	}
	return fmt.Sprint(v.kind)
}

var dictionaryTable = []struct {
	name  string
	lines []string
	want  string // members as key=kind:value; "!" for a field that is to be ignored
}{
	{"§4.2.2 empty", []string{""}, ""},
	{"§4.2 only spaces", []string{"   "}, ""},
	{"§4.2 a tab is no space", []string{"\t"}, "!"},
	{"§4.2.2 without a value it is true", []string{"a"}, "a=5:1"},
	{"§4.2.2 members", []string{"a=1, b=2,c=3\t,\t d"}, "a=0:1 b=0:2 c=0:3 d=5:1"},
	{"§4.2 lines are joined", []string{"a=1", "b=2"}, "a=0:1 b=0:2"},
	{"§4.2 an empty line breaks the list", []string{"a=1", ""}, "!"},
	{"§4.2.2 a comma at the end", []string{"a=1,"}, "!"},
	{"§4.2.2 an empty member", []string{"a=1,,b"}, "!"},
	{"§4.2.2 no comma", []string{"a b"}, "!"},
	{"§4.2.2 the last of its key", []string{"a=1, a=2"}, "a=0:1 a=0:2"},
	{"§4.2.3.3 a key in upper case", []string{"A=1"}, "!"},
	{"§4.2.3.3 a key that begins with a digit", []string{"1a"}, "!"},
	{"§4.2.3.3 a key of all characters", []string{"*a-_.*9"}, "*a-_.*9=5:1"},
	{"§4.2.2 space before =", []string{"a =1"}, "!"},
	{"§4.2.2 space after =", []string{"a= 1"}, "!"},
	{"§4.2.2 nothing after =", []string{"a="}, "!"},
	{"§4.2.3.2 parameters", []string{"a;x;y=1; z=\"s\", b=2;x"}, "a=5:1 b=0:2"},
	{"§4.2.3.2 a space before them", []string{"a ;x"}, "!"},
	{"§4.2.3.2 a parameter without a key", []string{"a;"}, "!"},
	{"§4.2.3.2 a parameter without its value", []string{"a;x="}, "!"},
	{"§4.2.3.2 a list as a parameter", []string{"a;x=(1)"}, "!"},
	{"§4.2.4 15 digits", []string{"a=999999999999999"}, "a=0:999999999999999"},
	{"§4.2.4 16 digits", []string{"a=1000000000000000"}, "!"},
	{"§4.2.4 negative", []string{"a=-5"}, "a=0:-5"},
	{"§4.2.4 a sign alone", []string{"a=-"}, "!"},
	{"§4.2.4 plus", []string{"a=+5"}, "!"},
	{"§4.2.4 leading zeros", []string{"a=007"}, "a=0:7"},
	{"§4.2.4 Decimal", []string{"a=10.5"}, "a=1"},
	{"§4.2.4 Decimal, 12 and 3 digits", []string{"a=123456789012.123"}, "a=1"},
	{"§4.2.4 Decimal, 13 digits", []string{"a=1234567890123.1"}, "!"},
	{"§4.2.4 Decimal, 4 digits behind", []string{"a=1.1234"}, "!"},
	{"§4.2.4 Decimal without any", []string{"a=1."}, "!"},
	{"§4.2.5 String", []string{`a="x y"`}, `a=2:"x y"`},
	{"§4.2.5 escapes", []string{`a="\"\\"`}, `a=2:"\"\\"`},
	{"§4.2.5 another escape", []string{`a="\n"`}, "!"},
	{"§4.2.5 open", []string{`a="x`}, "!"},
	{"§4.2.5 open escape", []string{`a="x\`}, "!"},
	{"§4.2.5 beyond ASCII", []string{"a=\"\u00fc\""}, "!"},
	{"§4.2.5 a tab", []string{"a=\"\t\""}, "!"},
	{"§4.2.5 a comma inside", []string{`a="x, b", c`}, `a=2:"x, b" c=5:1`},
	{"§4.2.6 Token", []string{"a=x/y:z"}, `a=3:"x/y:z"`},
	{"§4.2.6 Token, star", []string{"a=*x"}, `a=3:"*x"`},
	{"§4.2.7 Byte Sequence", []string{"a=:aGk=:"}, "a=4"},
	{"§4.2.7 not base64", []string{"a=:a.k:"}, "!"},
	{"§4.2.7 a line inside", []string{"a=:aG\nk=:"}, "!"},
	{"§4.2.7 open", []string{"a=:aGk="}, "!"},
	{"§4.2.8 true", []string{"a=?1"}, "a=5:1"},
	{"§4.2.8 false", []string{"a=?0"}, "a=5:0"},
	{"§4.2.8 neither", []string{"a=?2"}, "!"},
	{"§4.2.8 half", []string{"a=?"}, "!"},
	{"§4.2.9 Date", []string{"a=@1659578233"}, "a=6:1659578233"},
	{"§4.2.9 Date with a fraction", []string{"a=@1.5"}, "!"},
	{"§4.2.10 Display String", []string{`a=%"f%c3%bc"`}, "a=7"},
	{"§4.2.10 capitals", []string{`a=%"f%C3%BC"`}, "!"},
	{"§4.2.10 no UTF-8", []string{`a=%"%c3"`}, "!"},
	{"§4.2.10 half a byte", []string{`a=%"%c`}, "!"},
	{"§4.2.10 no quote", []string{"a=%x"}, "!"},
	{"§4.2.10 a tab", []string{"a=%\"\t\""}, "!"},
	{"§4.2.10 open", []string{`a=%"x`}, "!"},
	{"§4.2.1.2 Inner List", []string{`a=(1 "x"  y;z );w, b`}, "a=8 b=5:1"},
	{"§4.2.1.2 empty", []string{`a=()`}, "a=8"},
	{"§4.2.1.2 open", []string{`a=(1`}, "!"},
	{"§4.2.1.2 commas inside", []string{`a=(1,2)`}, "!"},
	{"§4.2.1.2 nested", []string{`a=((1))`}, "!"},
	{"§4.2.3.1 no type begins so", []string{`a=&`}, "!"},
	{"longer than is read", []string{"a, " + strings.Repeat("x", maxStructured)}, "!"},
}

// dictionary writes down what was read.
func dictionary(lines []string) string {
	var members []string
	if !sfDictionary(lines, func(key string, v sfValue) { members = append(members, key+"="+v.render()) }) {
		return "!"
	}
	return strings.Join(members, " ")
}

func TestDictionary(t *testing.T) { // RFC 9651
	t.Parallel()
	for _, row := range dictionaryTable {
		assert.Equal(t, row.want, dictionary(row.lines), row.name)
	}
}

func FuzzDictionary(f *testing.F) {
	for _, row := range dictionaryTable {
		f.Add(strings.Join(row.lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		if len(field)+2*len(lines) > maxStructured/2 {
			return // no room for a member more
		}
		got := dictionary(lines)
		require.Equal(t, got, dictionary([]string{strings.Join(lines, ", ")}), "lines and members are one list")
		if got == "!" || got == "" {
			return
		}
		require.Equal(t, got+" z=5:1", dictionary(append(lines, "z;p")), "a member more is a member more")
		require.Equal(t, "!", dictionary(append(lines, "&")), "one broken member breaks all")
	})
}

func FuzzList(f *testing.F) {
	f.Add(`"a", "b";revalidate`)
	f.Add(`a, (b "c");d=1, ?0, :aGk=:`)
	f.Add(`1, 2.5,`)
	f.Fuzz(func(t *testing.T, field string) {
		n, m := 0, 0
		if len(field) > maxStructured/2 || !sfList([]string{field}, func(sfValue) { n++ }) || n == 0 {
			return
		}
		require.True(t, sfList([]string{field, "x"}, func(sfValue) { m++ }))
		require.Equal(t, n+1, m)
		require.False(t, sfList([]string{field, "&"}, func(sfValue) {}), "one broken member breaks all")
	})
}
