// Package scenario describes benchmark loads: queries, and the mixes and scenarios that they are
// part of.
//
// Parse reads the document of `larder bench`. It rejects unknown keys, and names the line and what
// belongs there. A Subject is what bench has found out about a bucket: its time
// range, a metric, and labels of that metric. Schedule draws requests from it. The same document,
// subject and seed draw the same requests.
//
// The package owns no bytes and has no locks.
package scenario
