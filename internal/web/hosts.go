package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

// hosts decides which Host headers are names of this server.
//
// DNS rebinding is the attack: a page at evil.example has its name lead to this server, and its
// browser then takes the page and the server for one origin. No check of Origin, no header and no
// cookie tells such a request from an honest one. The name does: the page cannot choose it.
type hosts struct {
	given, own []string
}

// privateSuffixes end names that no public DNS server answers for, so that no other site can have
// them lead here. A client in the network of the larder could, by answering for them locally (mDNS,
// LLMNR). That is accepted: it can do worse to a connection without TLS.
func privateSuffixes() []string {
	return []string{".localhost", ".internal", ".svc", ".cluster.local"}
}

// hostPattern is *, a host name, or one with * for its first labels.
var hostPattern = regexp.MustCompile(
	`^(\*|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?)$`)

// ParseHost reads an element of Options.AllowedHosts: a host name without a port, *.example.com for
// all names below example.com, or * for every name.
func ParseHost(s string) (string, error) {
	name := strings.ToLower(s)
	if !hostPattern.MatchString(name) {
		return "", fmt.Errorf("%q is not a host name such as a.example.com, *.example.com or *", s)
	}
	return strings.TrimSuffix(name, "."), nil
}

// private tells whether no page of another site can have the name: a literal address, a name
// without a dot, a name of a private domain, or one of the machine's own.
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

// allowed tells whether requests under a Host header may do everything.
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

// hostError is the refusal of a Host header.
type hostError struct{ host string }

func (e hostError) Error() string {
	return fmt.Sprintf("Host %.100q is refused: a page of another site could use this name "+
		"(DNS rebinding); if it is a name of this server, give it to --web.allowed-hosts", e.host)
}

// check returns an error for a request under a name that is not allowed.
func (h *hosts) check(r *http.Request) error {
	if h.allowed(r.Host) {
		return nil
	}
	return hostError{r.Host}
}

// guard refuses requests under names that are not allowed.
func (h *hosts) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guardShown is guard for pages and API once names are given. Without, they are served under every
// name: by default every site may read the API (CORS, as in Thanos), and the pages show the same.
func (h *hosts) guardShown(next http.Handler) http.Handler {
	if len(h.given) == 0 {
		return next
	}
	return h.guard(next)
}
