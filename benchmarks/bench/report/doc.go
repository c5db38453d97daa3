// Package report holds the results of `larder bench`: as a table, as JSON, and as one HTML page
// with SVG plots that needs neither scripts nor other files. Compare shows how two results differ.
//
// The package owns no bytes and has no locks.
package report
