package redaction

import (
	"regexp"
	"slices"
	"strings"
)

// Mark stands where a secret stood.
const Mark = "<REDACTED>"

var (
	// The user and password of a URL end at its last @, because passwords may hold one.
	urlUser = regexp.MustCompile("([a-zA-Z][a-zA-Z0-9+.-]*://)[^\\s\"'<>`]+@")
	// An address without a scheme has them if there is a colon before the @: user@host may be a
	// mail address, which error messages of object stores name on purpose.
	addressUser = regexp.MustCompile("(^|[\\s\"'`(=,\\[{+/])" +
		"[^\\s\"'`<>@/:=,\\[{(+]+:[^\\s\"'`<>@]+@")

	urlQuery   = regexp.MustCompile("([a-zA-Z][a-zA-Z0-9+.-]*://[^\\s\"'<>`?]*\\?)([^\\s\"'<>`]+)")
	queryValue = regexp.MustCompile(`([^=&;]+=)([^&;]+)`)

	// What is called a secret, in queries without a URL, connection strings and the like.
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

// harmless are the query parameters whose values are shown: those of requests that list and read
// objects, and of larder's own pages.
func harmless() []string {
	return []string{
		"action", "comp", "days", "debug", "delimiter", "encoding-type", "fetch-owner", "format",
		"id", "include", "list-type", "location", "max-keys", "maxresults", "metadata",
		"partnumber", "prefix", "projection", "restype", "seconds", "start-after", "timeout",
		"uploads", "versionid", "versions", "view",
	}
}

// Text returns s with Mark in the place of what has the shape of a secret: users and passwords in
// URLs and addresses, the values of query parameters of URLs but for those that are known to be
// harmless, values called a secret (sig=, AccountKey=, token=), headers that authorise, private
// keys, and values that a YAML library quotes.
func Text(s string) string {
	if strings.Contains(s, "@") {
		s = urlUser.ReplaceAllString(s, "${1}"+Mark+"@")
		s = addressUser.ReplaceAllString(s, "${1}"+Mark+"@")
	}
	if strings.Contains(s, "=") {
		s = urlQuery.ReplaceAllStringFunc(s, hideQuery)
		s = named.ReplaceAllString(s, "${1}"+Mark)
	}
	if strings.Contains(s, ":") {
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

// hideQuery hides the values of the parameters of a URL, which ends with its query.
func hideQuery(url string) string {
	before, query, _ := strings.Cut(url, "?")
	query = queryValue.ReplaceAllStringFunc(query, func(pair string) string {
		name, _, _ := strings.Cut(pair, "=")
		if slices.Contains(harmless(), strings.ToLower(name)) {
			return pair
		}
		return name + "=" + Mark
	})
	return before + "?" + query
}

// Address returns an address or URL that an operator gave without user, password, query and
// fragment, however they are written. Use it where the value is at hand: Text has to guess where
// one ends.
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
