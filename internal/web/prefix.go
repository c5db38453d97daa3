package web

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// base returns the prefix of the links of a page: "./" or an absolute path that ends with a slash.
// All pages are in one folder, therefore relative links work behind any proxy.
//
// Only the path of a prefix is used, same as in Thanos: a header must not lead to another host.
func (o *Options) base(r *http.Request) string {
	prefix := o.ExternalPrefix
	if prefix == "" && o.PrefixHeader != "" {
		prefix = r.Header.Get(o.PrefixHeader)
	}
	u, err := url.Parse(prefix)
	if err != nil {
		return "./"
	}
	clean := strings.Trim(path.Clean("/"+u.Path), "/")
	if clean == "" {
		return "./"
	}
	// Escape the path, because browsers read a backslash as a slash, and two slashes at the
	// beginning lead to another host.
	return (&url.URL{Path: "/" + clean + "/"}).EscapedPath()
}
