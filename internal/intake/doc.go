// Package intake bounds the memory that arriving gRPC messages take, on every service of a server.
//
// An Account holds the bytes of all messages together. A compressed message reserves its bytes as
// they come out of the decompressor (BoundDecompression). Every message reserves what it will hold
// before it is decoded, and keeps that until its request ends (Registrar). A reservation that does
// not fit is refused at once with ResourceExhausted: nothing waits for bytes of the account.
//
// # Who owns which bytes
//
// grpc owns the received and the decompressed bytes, and frees them once the message is decoded. A
// Reservation belongs to one request; the handler may add to it what it derives from the message.
//
// # Locks
//
// Account.mu guards a counter. The place of the decompressor that works on a large message is a
// channel: its holder needs nothing but a core.
//
// # Accepted risks
//
// Between the end of decompression and the beginning of decoding a message is in no account,
// because grpc passes no context to a decompressor. Nothing blocks there. While a message is
// decoded it exists three times (pieces, one buffer, the decoded form) and is counted once, because
// counting all three would refuse large messages that fit.
package intake
