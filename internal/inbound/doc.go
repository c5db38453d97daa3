// Package inbound bounds what clients open: connections of gRPC and HTTP, and gRPC's requests and
// streams.
//
// A Listener bounds connections and how fast their bytes are read. It sees TCP alone, below TLS.
// Requests counts open requests and the bytes of incomplete messages, from a request's headers on.
// A Pool has the places of streams that live as long as their clients like. All count by client,
// and the client that holds most for its share loses first. Requests also counts answers that grpc
// has not written, because a client can keep them by not reading: channelz tells how many there
// are.
//
// # What it holds
//
// Nothing of what is sent. A Listener knows its connections by client, and the last few that have
// stalled; each connection leaves when it is closed, by either side. Requests remembers up to 4096
// clients without requests, for what they have dropped.
//
// # Locks
//
// Listener.mu guards the counts and the stalled connections, Requests.mu those of requests, Pool.mu
// the streams. Connections are closed without them.
package inbound
