// Package objectstore models an object store over a bucket that answers at once, such as a folder:
// the time to the first byte with its tail, the bandwidth of a connection, errors, throttling.
//
// A Bucket also counts its calls, and can record its reads. From a record, Trips tells how many
// reads had to wait for one another. The model uses the clock of package time; within a
// testing/synctest bubble it is exact. The same seed draws the same times and errors for calls in
// the same order.
//
// Bytes belong to the caller. Bucket.mu guards model, counts and record, and is not held while a
// call waits.
package objectstore
