// Package dash holds what operators look at: a dashboard for Grafana, and alert
// rules for Prometheus, which go by the names of the metrics page.
package dash

import (
	_ "embed" // of the files
	"path"
)

//go:embed grafana.json
var grafana string

//go:embed alerts.yml
var alerts string

// A File is one that may be downloaded.
type File struct {
	Type    string // of media
	Content string
}

// Download returns the file that the last segment of a path names.
func Download(urlPath string) (f File, ok bool) {
	switch path.Base(urlPath) {
	case "grafana.json":
		return File{"application/json", grafana}, true
	case "alerts.yml":
		return File{"application/yaml", alerts}, true // RFC 9512
	}
	return File{}, false
}
