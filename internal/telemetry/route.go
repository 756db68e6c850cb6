package telemetry

import (
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxRoutes is how many mount patterns of a service are told apart. They are
// the app's code, not a client's choice; the bound is for a router that puts
// something else into http.Request.Pattern.
const maxRoutes = 64

// A route is a service under one mount pattern.
type route struct {
	template string // http.route; "": none

	starts [methodCount][2][2]atomic.Pointer[start] // by inner and secure
	series [2]seriesTable                           // by inner
}

// route returns the route of requests that reached the service by pattern.
func (s *Service) route(pattern string) *route {
	if pattern == "" || s.mount != "" || !s.routed {
		return s.unmounted
	}
	if r, ok := s.routes.get(pattern); ok {
		return r
	}
	if r, ok := s.routes.put(pattern, s.newRoute(pattern), maxRoutes); ok {
		return r
	}
	return s.unmounted
}

// eachRoute tells all routes.
func (s *Service) eachRoute(tell func(*route)) {
	if kept, _ := s.mounts.get(s.mount); kept != s.unmounted {
		tell(s.unmounted)
	}
	for _, routes := range []*map[string]*route{s.mounts.m.Load(), s.routes.m.Load()} {
		if routes != nil {
			for _, r := range *routes {
				tell(r)
			}
		}
	}
}

func (s *Service) newRoute(pattern string) *route { return &route{template: s.Template(pattern)} }

// Template returns the http.route of requests that reach the service by pattern;
// "" is a router that leaves none.
func (s *Service) Template(pattern string) string {
	if s.mount != "" {
		return text(below(s.mount, s.name, s.whole), maxURL)
	}
	return text(template(pattern, s.name, s.whole), maxURL)
}

// CheckMount says what keeps a path from being one that a handler is mounted
// below; "" if nothing does.
func CheckMount(path string) (reason string) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return "does not begin with a slash"
	case len(path) > maxText:
		return "longer than 256 bytes"
	case strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.ContainsAny(path, "?#*"):
		return "has a character that is not visible ASCII, or ?, # or *"
	}
	return ""
}

// below returns the route of a service whose handler is mounted below a path.
func below(mount, service string, whole bool) string {
	mount = strings.TrimRight(mount, "/")
	if whole {
		return mount + "/{path...}"
	}
	return mount + "/" + service + "/{path...}"
}

// template returns the route that the app's router matched together with ours.
// A pattern is "[METHOD ][HOST]/[PATH]" as http.ServeMux has it; a router that
// ends its own with * is understood too.
func template(pattern, service string, whole bool) string {
	path := ""
	if i := strings.IndexByte(pattern, '/'); i >= 0 {
		path = pattern[i:]
	}
	literal := path
	if i := strings.IndexAny(path, "{*"); i >= 0 {
		literal = path[:i]
	}
	if first, _, _ := strings.Cut(strings.TrimPrefix(literal, "/"), "/"); first == service {
		whole = true // mounted under the service's own segment, with nothing stripped
	}
	switch {
	case path != "" && path == literal && !strings.HasSuffix(path, "/"):
		return path // one path exactly
	case !whole:
		return strings.TrimSuffix(literal, "/") + "/" + service + "/{path...}"
	case path == "":
		return "/{path...}"
	case strings.HasSuffix(path, "{$}"):
		return strings.TrimSuffix(path, "{$}")
	case strings.HasSuffix(path, "*"):
		return strings.TrimSuffix(path, "*") + "{path...}"
	case strings.HasSuffix(path, "/"):
		return path + "{path...}"
	}
	return path
}

// start returns what a span of sv starts with.
func (r *route) start(sv *Server) *start {
	p := &r.starts[sv.method][index(sv.inner)][index(sv.secure)]
	if s := p.Load(); s != nil {
		return s
	}
	kind := trace.SpanKindServer
	if sv.inner {
		kind = trace.SpanKindInternal
	}
	attrs := append(r.fixed(sv.secure), sv.method.attribute())
	if sv.service.name != "" {
		attrs = append(attrs, serviceKey.String(sv.service.name))
	}
	s := newStart(kind, sv.method.spanName(r.template), attrs...)
	p.Store(s)
	return s
}

func (r *route) fixed(secure bool) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 8), semconv.URLScheme(scheme(secure)))
	if r.template != "" {
		attrs = append(attrs, semconv.HTTPRoute(r.template))
	}
	return attrs
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}
