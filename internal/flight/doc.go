// Package flight lets callers that want the same thing at the same time share the work for it.
//
// Group.Do runs work once for all callers that use the same key while it runs. Work does not depend
// on the caller that started it: it continues while any caller waits. Failures are not remembered.
//
// Inline.Do is for work that cannot outlive the request that started it: the first caller does the
// work itself.
//
// A Group owns only the table of running work. All callers share a result, so they must not write
// to it. Group.mu guards the table and the number of waiters of each call, Inline.mu the table.
// Neither is held while work runs or a caller waits.
package flight
