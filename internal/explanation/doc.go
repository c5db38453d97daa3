// Package explanation says what a Series request reads of the bucket, block by block. Package store
// makes explanations, and package web shows them as JSON and as a page. It owns no bytes and has no
// locks.
package explanation
