// Package activity knows what requests do: those that run or wait now, the slowest recent ones, and
// recent failures. Package store tells it, and package web shows it.
//
// A Log owns copies only, at most a few hundred kilobytes: texts of requests are bounded by their
// makers. Log.mu guards all fields. Nothing is called under it.
package activity
