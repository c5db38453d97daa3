// Package compose starts the services of deploy/compose as processes, with the arguments of its
// compose file, and queries them. It contains only tests.
package compose
