// Package flags holds larder's command line to that of the real `thanos store`: which flags there
// are, their defaults, and which are hidden.
package flags
