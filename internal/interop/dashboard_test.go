package interop_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
)

// The dashboard in a real browser, below a deep path.
func TestDashboardInABrowser(t *testing.T) {
	var down atomic.Bool
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/fresh":
			w.Header().Set("Cache-Control", "max-age=60")
		case down.Load():
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "ok")
	}))
	gw := newGateway(t, gateway.WithCache(newCache(t)),
		gateway.WithService("users", up.URL), gateway.WithService("odd", up.URL, gateway.WithoutCache()),
		gateway.WithService("shaky", up.URL, gateway.WithoutCache(), gateway.WithoutRetries(), gateway.WithBreaker(0.5, 3)))
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	mux.Handle("/ops/deep/", http.StripPrefix("/ops/deep", gw.DashboardHandler()))
	app := serve(t, mux)
	want := func(status int, path string, n int) {
		for range n {
			assert.Equal(t, status, get(t, app.Client(), app.URL+path).StatusCode, path)
		}
	}

	b := newTab(t)
	page := app.URL + "/ops/deep/gateway/"
	b.open(app.URL+"/ops/deep/gateway", 1280, 900, false) // and is led to the page
	shown := func() int {
		n, err := strconv.Atoi(b.eval(`document.documentElement.dataset.shown || "0"`))
		require.NoError(t, err)
		return n
	}
	b.until("the page is there", `document.documentElement?.dataset.shown > 0`)
	assert.Equal(t, page, b.eval(`location.href`))
	assert.Equal(t, "live", b.eval(`document.getElementById("link").textContent`))
	assert.Equal(t, "odd,shaky,users", b.eval(`[...document.querySelectorAll("summary strong")].map(e => e.textContent).join()`))

	const points = `[...document.querySelectorAll(".rate polyline")].map(l => l.getAttribute("points")).join()`
	before := b.eval(points)
	want(200, "/api/users/fresh", 20)
	b.until("charts move", `document.querySelectorAll(".rate polyline")[2].getBBox().width > 5 && `+points+` !== `+strconv.Quote(before))
	b.until("what is stored is there", `document.getElementById("caches").textContent.includes("1 entry")`)
	b.until("the slowest are there", `document.querySelectorAll("#slowest tr").length > 5 && document.getElementById("slowest").textContent.includes("GET /api/users/fresh")`)

	down.Store(true)
	want(500, "/api/shaky/x", 3)
	want(503, "/api/shaky/x", 1)
	at := shown()
	b.until("the breaker", `document.getElementById("cards").textContent.includes("breaker open")`)
	assert.LessOrEqual(t, shown(), at+2, "at the next update")
	assert.Contains(t, b.eval(`document.getElementById("changes").textContent`), "shakybreaker open · was closed")
	assert.Equal(t, "0", b.eval(`document.querySelectorAll("#cards b b, td b, script:not([src]), [style]").length`), "what is told is no markup")

	reached := map[string]bool{}
	for range 40 {
		for _, kind := range []string{"keyDown", "keyUp"} {
			b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}, nil)
		}
		reached[b.eval(`(e => e.id || e.tagName + " " + (e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.className))(document.activeElement)`)] = true
	}
	for _, place := range []string{"A skip", "filter", "SUMMARY ", "DIV Replicas of users", "DIV slow-title", "DIV changes-title"} {
		assert.True(t, reached[place], "%q is out of reach of the keyboard: %v", place, reached)
	}
	b.eval(`document.getElementById("filter").value = "USE"; document.getElementById("filter").dispatchEvent(new Event("input"))`)
	assert.Equal(t, "1", b.eval(`[...document.querySelectorAll("details")].filter(d => !d.hidden).length`))

	grounds := map[string]bool{}
	b.shoot(filepath.Join(t.ArtifactDir(), "desktop.png")) // kept where go test has -artifacts
	for _, dark := range []bool{false, true} {
		b.open(page, 360, 780, dark)
		b.until("the page is there again", `document.documentElement?.dataset.shown > 0`)
		assert.Equal(t, "360", b.eval(`document.documentElement.scrollWidth`), "nothing is beyond a phone's edge")
		grounds[b.eval(`getComputedStyle(document.body).backgroundColor`)] = true
	}
	b.shoot(filepath.Join(t.ArtifactDir(), "phone.png"))
	assert.Len(t, grounds, 2, "light and dark")
	b.quiet(app.URL + "/ops/deep/")

	b.eval(`window.links = []; new MutationObserver(() => links.push(document.getElementById("link").textContent)).observe(document.getElementById("link"), {childList: true, characterData: true, subtree: true})`)
	at = shown()
	app.CloseClientConnections()
	b.until("it is back", fmt.Sprintf(`links.includes("reconnecting…") && links[links.length - 1] === "live" && document.documentElement.dataset.shown > %d`, at+1))
}
