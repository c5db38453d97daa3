// Package inbound bounds what clients open: connections of gRPC and HTTP, gRPC requests and
// streams.
//
// A Listener bounds connections and the rate at which their bytes are read. It sees TCP, below TLS.
// Requests bounds open requests and the bytes of incomplete messages, from the headers of a request
// on, and also answers that grpc has not written because their clients do not read. A Pool bounds
// streams without a natural end, those of Health and reflection. All of them count by client, and
// the client that has most for its share loses first.
//
// # What it owns
//
// No bytes of messages. A Listener knows its connections by client, and the last streams that have
// stalled. A connection is forgotten when either side closes it. Requests remembers up to 4096
// clients without requests, because of the requests that they have dropped.
//
// # Locks
//
// Listener.mu guards connection counts and stalled connections, Requests.mu the counts of requests,
// Pool.mu the streams. Connections are closed without these locks.
//
// # Caveats
//
// Only channelz knows which answers grpc has not written, therefore Requests polls it.
package inbound
