// Package web compares the HTTP answers of larder and `thanos store`, each a process over a bucket
// of the same blocks.
package web
