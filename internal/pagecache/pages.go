package pagecache

// Object is an immutable object of the bucket, read through pages.
type Object struct {
	// Name is the object's full name in the bucket.
	Name string
	// Size is the object's exact size in bytes: no read goes past it.
	Size int64
	// ID identifies the object within the process and this cache: block number << 14 | file number.
	// INVARIANT: two objects never share an ID while the process lives.
	ID uint64
}

// Span is the byte range [Off, End) of an object.
type Span struct {
	Off, End int64
}
