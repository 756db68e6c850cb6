package dash

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDownload(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/metrics/grafana.json": "application/json",
		"grafana.json":          "application/json",
		"/a/b/alerts.yml":       "application/yaml",
		"/metrics":              "",
		"/":                     "",
		"":                      "",
		"/grafana.json/x":       "",
		"/dash.go":              "",
		"/Grafana.json":         "",
	} {
		f, ok := Download(path)
		assert.Equal(t, want != "", ok, path)
		assert.Equal(t, want, f.Type, path)
		assert.Equal(t, ok, f.Content != "", path)
	}
}

// Grafana places panels by a grid of 24 columns, and knows them by their ids.
func TestPanelsHaveTheirPlaces(t *testing.T) {
	t.Parallel()
	f, ok := Download("grafana.json")
	require.True(t, ok)
	var board struct {
		Panels []struct {
			ID          int
			Title, Type string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ RefID, Expr string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(f.Content), &board))
	ids, titles, taken := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		assert.False(t, ids[p.ID] || titles[p.Title], "%d %q comes twice", p.ID, p.Title)
		ids[p.ID], titles[p.Title] = true, true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], "where %q is, too", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		assert.NotEmpty(t, p.Targets, p.Title)
		assert.True(t, strings.HasSuffix(p.Description, "."), "%q is explained by a sentence", p.Title)
	}
}
