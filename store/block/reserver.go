package block

// Reserver reserves bytes for a request beyond what it estimated. Its methods are safe for
// concurrent use and do not wait.
type Reserver interface {
	// Reserve reserves n more bytes. Its error ends the stream or the batch that needs them.
	Reserve(n int64) error
	// TryReserve reserves n more bytes if they are free. Without them the work is slower.
	TryReserve(n int64) bool
	// Release ends the use of n reserved bytes.
	Release(n int64)
}

// unlimited is the Reserver of a caller that gives none.
type unlimited struct{}

func (unlimited) Reserve(int64) error   { return nil }
func (unlimited) TryReserve(int64) bool { return true }
func (unlimited) Release(int64)         {}

// reserverOr returns r, or one without a limit if r is nil.
func reserverOr(r Reserver) Reserver {
	if r == nil {
		return unlimited{}
	}
	return r
}
