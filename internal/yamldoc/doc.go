// Package yamldoc explains what is wrong with a YAML document of a flag: in which line, under which
// key, and what belongs there.
//
// The YAML libraries decide whether a document is good; this package is asked only when one has
// refused it. The libraries name Go's types and not the keys above, count some lines from zero, and
// for a part that is decoded from its own text they count from that part. The package looks at the
// document once more, beside the Go type that it was decoded into.
//
// Explanations repeat keys and never values, which may be secrets that stand in the wrong place.
// The package holds no state and no locks.
package yamldoc
