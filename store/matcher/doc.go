// Package matcher parses the matchers of requests, and bounds what their expressions take.
package matcher
