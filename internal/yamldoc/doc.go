// Package yamldoc explains why a YAML document of a flag was rejected.
//
// A YAML library decides whether a document is valid; this package is called only after it has
// rejected one. An explanation names the line, the keys above it, and what belongs there. The
// libraries name Go types instead of keys, count some lines from zero, and restart at zero for a
// part that is decoded from its own text. The package therefore walks the document again, next to
// the Go type that it was decoded into.
//
// Explanations repeat keys and never values, because a value may be a secret in the wrong place.
//
// The package owns no bytes and has no locks.
package yamldoc
