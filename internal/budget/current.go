package budget

import (
	"sync/atomic"
	"time"
)

// Current holds the budgets that are in use. It is safe for concurrent use. A nil Current and one
// without a document have no budgets.
type Current struct{ doc atomic.Pointer[Document] }

// NewCurrent returns a Current with a document, nil for none.
func NewCurrent(d *Document) *Current {
	c := &Current{}
	c.Set(d)
	return c
}

// Set replaces the document. Requests that end afterwards are compared with the new one.
func (c *Current) Set(d *Document) { c.doc.Store(d) }

// Of returns the budgets of a method.
func (c *Current) Of(method string) Times {
	if d := c.document(); d != nil {
		return *d.Requests.Of(method)
	}
	return Times{}
}

// BucketRead returns the budget of a read of the bucket; 0 = none.
func (c *Current) BucketRead() time.Duration {
	if d := c.document(); d != nil {
		return d.BucketRead
	}
	return 0
}

func (c *Current) document() *Document {
	if c == nil {
		return nil
	}
	return c.doc.Load()
}
