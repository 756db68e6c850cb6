package rfc9111

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// variantOf returns an entry for one language.
func variantOf(language string, do ...func(*Exchange)) *Entry {
	do = append([]func(*Exchange){asks("Accept-Language", language), answers("Vary", "Accept-Language"), answers("X-For", language)}, do...)
	return stored(language, do...)
}

func asking(language string) http.Header { return http.Header{"Accept-Language": {language}} }

func TestFind(t *testing.T) { // RFC 9111 §4, §4.1
	t.Parallel()
	dated := func(after time.Duration) func(*Exchange) { return answers("Date", at(after)) }
	de, en := variantOf("de"), variantOf("en")
	older, newer := variantOf("de", dated(-second)), variantOf("de", dated(second))
	forgot := stored("forgot", dated(time.Minute))
	for name, row := range map[string]struct {
		variants []*Entry
		want     *Entry
	}{
		"one that matches":                   {[]*Entry{en, de}, de},
		"none":                               {[]*Entry{en}, nil},
		"the most recent by Date":            {[]*Entry{newer, older}, newer},
		"one with Vary before one without":   {[]*Entry{older, forgot}, older},
		"and whichever came last":            {[]*Entry{forgot, older}, older},
		"one without, where no other is one": {[]*Entry{en, forgot}, forgot},
		"the last to come of one Date":       {[]*Entry{variantOf("de"), de}, de},
	} {
		assert.Same(t, row.want, newResource(row.variants).Find(asking("de")), name)
	}
}

func TestWithVariants(t *testing.T) {
	t.Parallel()
	de, en, other := variantOf("de"), variantOf("en"), variantOf("de")
	r := (*Resource)(nil).With(de, nil)
	assert.Equal(t, []*Entry{de}, r.Variants)
	r = r.With(en, nil)
	assert.Equal(t, []*Entry{de, en}, r.Variants)
	assert.Equal(t, de.Size+en.Size, r.Size())
	assert.Equal(t, []*Entry{en, other}, r.With(other, nil).Variants, "the same variant")
	assert.Equal(t, []*Entry{other}, r.With(other, en).Variants, "and what the request selected before")
	for i := range 2 * maxVariants {
		r = r.With(variantOf(strconv.Itoa(i)), nil)
	}
	assert.Len(t, r.Variants, maxVariants)
	assert.Equal(t, strconv.Itoa(maxVariants), r.Variants[0].Head.Get("X-For"), "the oldest have gone")
}

func TestExpire(t *testing.T) {
	t.Parallel()
	r := newResource([]*Entry{variantOf("de"), variantOf("en", says("max-age=10"))})
	now := today.Add(20 * second)
	out := r.Expire(now)
	assert.True(t, out.Expired)
	assert.False(t, r.Expired)
	assert.True(t, r.Variants[0].Terms.Fresh(r.Variants[0].Age(now)), "the old one is as it was")
	for i, e := range out.Variants {
		assert.False(t, e.Terms.Fresh(e.Age(now)))
		assert.Equal(t, r.Size(), out.Size())
		assert.Equal(t, r.Variants[i].Body, e.Body)
	}
	assert.Equal(t, 10*second, out.Variants[1].Terms.Lifetime, "no lifetime grows")
	assert.False(t, out.With(variantOf("fr"), nil).Expired, "a new variant is not")
}

func TestTagged(t *testing.T) {
	t.Parallel()
	r := newResource([]*Entry{variantOf("de"), variantOf("en", answers("Cache-Tag", "red"))})
	assert.True(t, r.Tagged([]string{"blue", "red"}))
	assert.False(t, r.Tagged([]string{"blue"}))
}

func TestResourceIsUselessWithItsLastVariant(t *testing.T) {
	t.Parallel()
	long, short := variantOf("de", says("max-age=600")), variantOf("en")
	assert.Equal(t, long.Useless(), newResource([]*Entry{long, short}).Useless())
	assert.Equal(t, long.Useless(), newResource([]*Entry{short, long}).Useless())
}

func TestWhatA304IsAbout(t *testing.T) { // RFC 9111 §4.3.4
	t.Parallel()
	etag := func(tag string) func(*Exchange) { return answers("Etag", tag) }
	dated := answers("Last-Modified", at(-time.Hour))
	de, en := variantOf("de", etag(`"de"`), dated), variantOf("en", etag(`"en"`), dated)
	weak, bare := variantOf("fr", etag(`W/"fr"`), dated), variantOf("it")
	some, _ := partOf(0, 3)
	fragment := some.Combined(nil, &Part{Span: Span{0, 3}, Size: 10, Validators: some.Validators}, []byte("012"), 100)
	for _, row := range []struct {
		name           string
		variants       []*Entry
		selected       *Entry
		language       string
		about          []*Entry
		tag            string // of the 304
		want           *Entry
		conditionsDate bool
	}{
		{"the one that is selected", []*Entry{de, en}, de, "de", []*Entry{de}, `"de"`, de, true},
		{"the one that is selected, though the 304 says nothing", []*Entry{de, en}, de, "de", []*Entry{de}, "", de, true},
		{"another, by a strong tag", []*Entry{de, en, weak, bare}, nil, "es", []*Entry{de, en}, `"en"`, en, false},
		{"nothing, by a weak tag", []*Entry{de, en}, nil, "es", []*Entry{de, en}, `W/"en"`, nil, false},
		{"nothing, where the 304 says nothing", []*Entry{de}, nil, "es", []*Entry{de}, "", nil, false},
		{"nothing that is stored", []*Entry{de}, de, "de", []*Entry{de}, `"other"`, nil, true},
		{"a weak tag of the selected one", []*Entry{weak}, weak, "fr", []*Entry{weak}, `W/"fr"`, weak, true},
		{"no validator", []*Entry{bare}, bare, "it", nil, "", nil, false},
		{"no part of one", []*Entry{fragment, de}, nil, "es", []*Entry{de}, `"de"`, de, false},
	} {
		r := newResource(row.variants)
		about := r.Validatable(row.selected, asking(row.language))
		assert.Equal(t, row.about, about, row.name)
		named := Conditions(about, row.selected)
		assert.Len(t, named, len(row.about), row.name)
		for _, v := range named {
			assert.Equal(t, row.conditionsDate, v.LastModified != "", row.name)
		}
		assert.Same(t, row.want, Confirmed(about, named, row.selected, &Validators{ETag: row.tag}), row.name)
	}
	again := variantOf("de", etag(`"de"`), answers("Date", at(-second)))
	about := newResource([]*Entry{again, de}).Validatable(de, asking("de"))
	assert.Same(t, de, Confirmed(about, Conditions(about, de), de, &Validators{ETag: `"de"`}), "the selected one of several that have the tag")
}
