// Package inbound is the connections that clients open, gRPC's and HTTP's: how many there may be, in all and of one client, and when larder
// hangs up by itself.
//
// It sees TCP alone, below TLS: what a client does with a connection that it may have is the business of the server above. Two things are told
// by that server: a stream that ended because its client did not read it (Stalled), and a request that began (Requests.Begin).
//
// # What it holds
//
// Nothing of what is sent. A Listener knows its connections by client, and the last few that have stalled; each connection leaves when it is
// closed, by whichever side.
//
// # Locks
//
// Listener.mu guards the counts and the stalled ones. Connections are closed without it.
package inbound
