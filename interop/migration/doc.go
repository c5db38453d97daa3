// Package migration walks the ways of docs/migrating-from-thanos.md, there and back, with the
// argument lists that charts give `thanos store`. It contains only tests.
package migration
