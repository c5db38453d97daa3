// Package neighbour starts the components of Thanos that stand around a store gateway, each the
// real thanos binary as a process of its own, and speaks PromQL to those that answer it.
//
// Whoever starts a neighbour closes it. Nothing is shared between two of them but what their flags
// say.
package neighbour
