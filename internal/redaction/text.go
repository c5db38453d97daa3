package redaction

import (
	"regexp"
	"slices"
	"strings"
)

// Mark replaces a secret.
const Mark = "<REDACTED>"

var (
	// An address without a scheme has a user and a password if there is a colon before the @.
	// user@host may be a mail address, which errors of object stores name on purpose.
	addressUser = regexp.MustCompile("(^|[\\s\"'`(=,\\[{+/])" +
		"[^\\s\"'`<>@/:=,\\[{(+]+:[^\\s\"'`<>@]+@")
	queryValue = regexp.MustCompile(`([^=&;]+=)([^&;]+)`)

	// Values of names such as token=, in queries without a URL, connection strings and the like.
	named = regexp.MustCompile(`(?i)((?:\b|_|-)(?:[a-z0-9_.-]*(?:secret|token|passw(?:or)?d|` +
		`passphrase|signature|credentials?|account_?key|access_?key(?:_?id)?|private_?key|` +
		`api_?key)|sig)=)("[^"]*"|[^\s"'&;,<>]+)`)
	header = regexp.MustCompile(`(?i)\b((?:proxy-)?authorization|x-amz-security-token|` +
		`x-(?:auth|subject)-token|x-[a-z-]*(?:customer|encryption)-key|(?:set-)?cookie):` +
		`[ \t]*[^\s"<][^\r\n"<]*`)
	bearer = regexp.MustCompile(`\b(Bearer )[A-Za-z0-9+/=._~-]{8,}`)

	privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?` +
		`(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// YAML libraries quote the value that they cannot decode.
	yamlValue = regexp.MustCompile("(!!\\w+) `[^`]*`")
)

// namedEnds and headerEnds are the suffixes of the names that the expressions named and header
// match. They are checked first, because most texts have none and expressions that ignore case are
// slow.
func namedEnds() []string {
	return []string{"secret", "token", "passwd", "password", "passphrase", "signature",
		"credential", "credentials", "key", "keyid", "key_id", "sig"}
}

func headerEnds() []string { return []string{"authorization", "token", "-key", "cookie"} }

// harmless lists the query parameters whose values are shown: those of requests that list and read
// objects, and of larder's web pages.
func harmless() []string {
	return []string{
		"action", "comp", "days", "debug", "delimiter", "encoding-type", "fetch-owner", "format",
		"id", "include", "list-type", "location", "max-keys", "maxresults", "metadata",
		"partnumber", "prefix", "projection", "restype", "seconds", "start-after", "timeout",
		"uploads", "versionid", "versions", "view",
	}
}

// Text replaces everything that has the shape of a secret by Mark: users and passwords in URLs and
// addresses, values of query parameters that are not known to be harmless, values of names such as
// sig=, AccountKey= and token=, authorization headers, private keys, and values that a YAML library
// quotes.
func Text(s string) string {
	if strings.Contains(s, "://") {
		s = hideInURLs(s)
	}
	if strings.Contains(s, "@") {
		s = addressUser.ReplaceAllString(s, "${1}"+Mark+"@")
	}
	if endsBefore(s, '=', namedEnds()) {
		s = named.ReplaceAllString(s, "${1}"+Mark)
	}
	if endsBefore(s, ':', headerEnds()) {
		s = header.ReplaceAllString(s, "${1}: "+Mark)
	}
	if strings.Contains(s, "Bearer ") {
		s = bearer.ReplaceAllString(s, "${1}"+Mark)
	}
	if strings.Contains(s, "-----BEGIN ") {
		s = privateKey.ReplaceAllString(s, Mark)
	}
	if strings.Contains(s, "!!") {
		s = yamlValue.ReplaceAllString(s, "$1 `"+Mark+"`")
	}
	return s
}

// endsBefore reports whether one of the words precedes a separator in s, in upper or lower case.
func endsBefore(s string, separator byte, words []string) bool {
	for rest := s; ; {
		i := strings.IndexByte(rest, separator)
		if i < 0 {
			return false
		}
		before := rest[:i]
		if slices.ContainsFunc(words, func(w string) bool {
			return len(before) >= len(w) && strings.EqualFold(before[len(before)-len(w):], w)
		}) {
			return true
		}
		rest = rest[i+1:]
	}
}

// hideInURLs hides the users, passwords and queries of the URLs in a text. A URL ends at a blank or
// a quote. Its password ends at its last @, because passwords may contain one.
func hideInURLs(s string) string {
	var out strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			out.WriteString(s)
			return out.String()
		}
		i += len("://")
		out.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexAny(s, " \t\r\n\"'<>`")
		if end < 0 {
			end = len(s)
		}
		url := s[:end]
		s = s[end:]
		if at := strings.LastIndexByte(url, '@'); at > 0 {
			out.WriteString(Mark)
			url = url[at:]
		}
		out.WriteString(hideQuery(url))
	}
}

// hideQuery hides the values of the query parameters of a URL.
func hideQuery(url string) string {
	before, query, ok := strings.Cut(url, "?")
	if !ok {
		return url
	}
	query = queryValue.ReplaceAllStringFunc(query, func(pair string) string {
		name, _, _ := strings.Cut(pair, "=")
		if slices.Contains(harmless(), strings.ToLower(name)) {
			return pair
		}
		return name + "=" + Mark
	})
	return before + "?" + query
}

// Address hides the user, password, query and fragment of an address or URL, however they are
// written. Prefer it to Text for a single value, because Text must guess where a URL ends.
func Address(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if ok {
		scheme += "://"
	} else {
		scheme, rest = "", s
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = Mark + "@" + rest[i+1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i+1] + Mark
	}
	return scheme + rest
}
