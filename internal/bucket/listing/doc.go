// Package listing verifies that the answer to a list request is a listing of the bucket.
//
// A maintenance page, an ingress or a caching proxy may answer a list request with HTTP 200 and a
// document that is no listing. Most clients decode such a document without an error and find no
// objects in it. For a gateway that means "the bucket is empty".
//
// Transport wraps the HTTP transport of a client. It recognises list requests of S3, GCS, AZURE and
// OCI, and checks their answers while the client reads them. It checks the root element or object,
// the bucket's name if the answer repeats it, and that the answer belongs to this request: prefix
// and continuation are those of the request, and the next page is another one. The clients of COS,
// ALIYUNOSS and OBS check the root element themselves. Those of SWIFT and BOS decode JSON, which
// pages and error documents are not.
//
// # Ownership of bytes
//
// The client reads a body, once. The scanner sees the bytes as they pass and keeps at most a few
// KiB of them, for any length of the answer. The client gets the last byte of the document only
// after the document was found to be a listing.
//
// # Locks
//
// There are none. A body belongs to one goroutine.
package listing
