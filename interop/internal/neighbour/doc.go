// Package neighbour starts the components of Thanos around a store gateway, each the real thanos
// binary as a process, and sends PromQL to those that answer it.
//
// The caller that starts a neighbour must close it. Two neighbours share nothing but what their
// flags name.
package neighbour
