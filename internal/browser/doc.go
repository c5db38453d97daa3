// Package browser looks at pages in a headless Chromium, for tests. It speaks the DevTools
// protocol.
//
// A Browser belongs to one test and its goroutine, and shows one page at a time. It has no locks.
package browser
