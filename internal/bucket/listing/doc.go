// Package listing verifies that the answer to a list request is a listing of the bucket.
//
// A maintenance page, an ingress or a caching proxy may answer a list request with HTTP 200 and
// a document that is no listing. Most clients decode such a document without an error and find
// no objects in it. For a gateway that means "the bucket is empty".
//
// Transport wraps the HTTP transport of a client. It recognises list requests of S3, GCS, AZURE
// and OCI, and reads their answers along with the client. It checks the root element or object,
// the bucket's name where the answer repeats it, and that the answer belongs to this request:
// prefix and continuation are the ones that were asked for, and the next page is another one.
// The clients of COS, ALIYUNOSS and OBS check the root element themselves. Those of SWIFT and BOS
// decode JSON, which a page or an error document is not.
//
// # Ownership and cost
//
// A body is read once, by the client. The scanner looks at the bytes as they pass and keeps at
// most a few KiB of them, however long the answer is. The client gets the last byte of the
// document only after the document was found to be a listing.
//
// A body belongs to one goroutine. There are no locks.
package listing
