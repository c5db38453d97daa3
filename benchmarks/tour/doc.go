// Package tour sends a set of questions to a StoreAPI server twice, and prints the answers and how
// long they took. Together the questions use most of the API. `larder demo` shows a tour of itself;
// it works with any gateway that serves the dataset's demo layout. Make a Tour with New, ask with
// Take, verify with Check, and show with Print.
//
// It is only a client of the wire protocol: it verifies what a Querier relies on (sorted series,
// chunk hashes, chunks within the requested range). A Tour may be used by one goroutine at a time.
package tour
