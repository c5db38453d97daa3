// Package redaction takes secrets out of texts that people read: errors, log lines, pages.
//
// Text needs to know nothing: it finds what has the shape of a secret, such as a user and a
// password in a URL, the value of a query parameter, or a private key. Document knows more: it
// hides the values of one configuration document in the errors about it. Address and File are for
// values that should be shown and may hold a secret by mistake.
//
// A text is redacted where it leaves the process, and where larder makes an error of something that
// was given. To redact a text twice changes nothing. Caveat: a secret without any such shape, in
// the place of the name of a bucket, a host or a file, is shown as that name.
package redaction
