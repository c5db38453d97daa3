// Package postings finds the series of one block that match a request: matchers become postings. A
// Finder belongs to one block and is asked once for each request; it knows the block only by its
// header, its index and its name. It groups the matchers by label name, looks up their posting
// lists in the index header, reads the lists that are worth their cost in one go, and combines
// them. Matchers whose lists cost more than checking the remaining series stay pending: the caller
// checks them against each series. Results are kept in a cache, and requests for the same matchers
// share one expansion.
//
// # Files
//
// finder.go answers a query: cache, shared work, index. canonical.go gives a set of matchers its
// identity. rules.go turns matchers into groups by label name; plan.go decides which groups are
// read; weigh.go prices what it chooses between; marks.go keeps a bit for each selected value where
// a name has very many; read.go decodes lists; set.go sorts and combines them. kept.go is the
// encoding in the cache, account.go the memory of running expansions.
//
// # Which lists are read
//
// A group's lists are read if they take fewer bytes than the series that they may exclude, or if
// that costs less than the requests for scattered series entries. internal/bucket/cost says what a
// read costs. All lists leave in one round, except those of names with very many values. The rules
// about empty values and missing labels are those of Prometheus's tsdb.PostingsForMatchers. See
// planner.
//
// # Bytes
//
// Postings of a Result are shared by requests and never written to; a request reserves their bytes
// before it gets them. Lists, pages and decoded postings of a running expansion belong to no
// request: Account bounds them. Pages are immutable and garbage collected. What is kept never
// decides about a limit: a request is charged for the pages that an expansion reads, even if its
// postings come from a cache.
//
// # Locks
//
// The package has no lock of its own. Requests wait for a shared expansion in internal/flight, and
// an expansion waits for bytes of Account while it holds nothing else.
//
// # Accepted risks
//
// Pessimistic weighing may read lists that exclude nothing, because a group's true overlap with the
// others is only known once both are read. Labels are taken to be independent of one another,
// because the header does not say how they are related: a group that excludes less than expected
// costs a request and at most 256 KiB for nothing.
package postings
