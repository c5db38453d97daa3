// Package tour asks a StoreAPI a set of questions that together use most of it, twice, and prints
// what came back and how long it took. It is what `larder demo` shows of itself, and works against
// any gateway that serves the dataset's demo layout.
//
// It is a client of the wire protocol alone: it verifies what a Querier relies on (sorted series,
// chunk hashes, chunks within the asked range) and knows nothing of the server. A Tour is used by
// one goroutine.
package tour
