// Package web compares what larder and `thanos store` answer over HTTP, each a process of its own
// over a bucket of the same blocks.
package web
