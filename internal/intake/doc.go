// Package intake bounds the memory of arriving gRPC messages, on every service of a server.
//
// An Account bounds the bytes of all messages together. BoundDecompression makes compressed
// messages reserve their bytes as they leave the decompressor. A Registrar makes every message
// reserve its memory before it is decoded, until its request ends. A reservation that does not fit
// fails at once with ResourceExhausted: nothing waits for bytes of the account.
//
// # What it owns
//
// grpc owns the received and the decompressed bytes, and frees them once the message is decoded. A
// Reservation belongs to one request. The handler may add to it what it derives from the message.
//
// # Locks
//
// Account.mu guards counters. The channel Account.unpacking admits one goroutine that decompresses
// a large message. That goroutine waits for nothing.
//
// # Accepted risks
//
// Between the end of decompression and the beginning of decoding, a message is in no account,
// because grpc passes no context to a decompressor. Nothing blocks there. While a message is
// decoded, it exists three times (pieces, one buffer, the decoded form) and is counted once,
// because counting all three would reject large messages that fit.
package intake
