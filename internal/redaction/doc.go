// Package redaction hides secrets in texts for people: errors, log lines and web pages.
//
// Text finds what has the shape of a secret: a user and password in a URL, the value of a query
// parameter, a private key. A Document hides the values of one configuration document in errors
// about it. Address and File are for values that should be shown but may contain a secret by
// mistake. Redaction is applied where a text leaves the process, and where an error repeats a given
// value; redacting twice changes nothing.
//
// # What it owns
//
// A Document keeps the values that it hides. The package has no locks and no state.
//
// # Caveats
//
// A secret without a known shape that is given as the name of a bucket, host or file is shown as
// that name.
package redaction
