// Package flags compares larder's command line with that of the real `thanos store`: the flags,
// their defaults, and which of them are hidden.
package flags
