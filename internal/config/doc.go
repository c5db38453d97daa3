// Package config holds the memory formula and the documents of the caches.
package config
