package web

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// base returns what the links of a page begin with: "./" or an absolute path that ends with a
// slash. All pages lie side by side, so that relative links find one another behind any proxy.
//
// Of a prefix only the path counts, as in Thanos: a header must not send people to another host.
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
	// Escaped: browsers take a backslash for a slash, and two in the beginning lead to another
	// host.
	return (&url.URL{Path: "/" + clean + "/"}).EscapedPath()
}
