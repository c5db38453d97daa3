package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

// hosts decides which Host headers are accepted as names of this server.
//
// It protects against DNS rebinding: evil.example resolves to the address of this server, and a
// browser then treats a page of evil.example and the server as one origin. Origin, headers and
// cookies look the same as in a legitimate request. Only the host name differs, and the page cannot
// choose it.
type hosts struct {
	given, own []string
}

// privateSuffixes returns the suffixes of names that public DNS does not resolve. No other site can
// point them at this server. A machine in the same network could, with mDNS or LLMNR. This risk is
// accepted, because such a machine can do worse to a connection without TLS.
func privateSuffixes() []string {
	return []string{".localhost", ".internal", ".svc", ".cluster.local"}
}

// hostPattern matches *, a host name, or a host name with * for its first labels.
var hostPattern = regexp.MustCompile(
	`^(\*|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?)$`)

// ParseHost parses an element of Options.AllowedHosts: a host name without a port, *.example.com
// for all names below example.com, or * for every name.
func ParseHost(s string) (string, error) {
	name := strings.ToLower(s)
	if !hostPattern.MatchString(name) {
		return "", fmt.Errorf("%q is not a host name such as a.example.com, *.example.com or *", s)
	}
	return strings.TrimSuffix(name, "."), nil
}

// private reports whether no other site can have the name: an IP address, a name without a dot, a
// name of a private domain, or a name of the machine.
func (h *hosts) private(name string) bool {
	if name == "" || !strings.Contains(name, ".") { // browsers always send a name
		return true
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	for _, suffix := range privateSuffixes() {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return matches(h.own, name)
}

// allowed reports whether requests with a Host header may do everything.
func (h *hosts) allowed(host string) bool {
	name := hostName(host)
	return h.private(name) || matches(h.given, name)
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		suffix, wild := strings.CutPrefix(p, "*")
		if p == name || wild && strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// hostName returns the name or address of a Host header in lower case, without port, brackets and
// the dot at the end.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// hostError is the error for a Host header that is not allowed.
type hostError struct{ host string }

func (e hostError) Error() string {
	return fmt.Sprintf("Host %.100q is not allowed: a page of another site could use this name "+
		"(DNS rebinding); if it is a name of this server, add it to --web.allowed-hosts", e.host)
}

// check returns an error for a request with a host name that is not allowed.
func (h *hosts) check(r *http.Request) error {
	if h.allowed(r.Host) {
		return nil
	}
	return hostError{r.Host}
}

// guard rejects requests with host names that are not allowed.
func (h *hosts) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guardShown guards pages and API if names are given. Otherwise they are served under every name,
// because every site may read the API by default (CORS, same as Thanos) and the pages show the
// same.
func (h *hosts) guardShown(next http.Handler) http.Handler {
	if len(h.given) == 0 {
		return next
	}
	return h.guard(next)
}
