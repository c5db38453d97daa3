// Package budget reads latency budgets: the time that a request may take, in total and by stage.
//
// A Document has two parts. Budgets, by scenario, are what `larder bench` compares its measurements
// with. Requests, by method, are what a running gateway compares each request with. A gateway
// observes its budgets: it counts and logs a request that exceeds them, and does not end it.
//
// Current holds the document that is in use. It can be replaced while requests run. A Document is
// immutable once it is in use.
//
// The package owns no bytes and has no mutex: Current is an atomic pointer.
package budget
