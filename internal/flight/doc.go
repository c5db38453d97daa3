// Package flight lets callers that want the same thing at the same time share
// the work for it.
//
// A Group owns nothing but the table of what is being worked on; a result is
// shared by all who waited for it, so it must not be written to. Group.mu guards
// that table and each call's number of waiters, and is never held while working
// or waiting.
package flight
