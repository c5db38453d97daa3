package block

// testReserver is a Reserver that counts. The zero value has no limit.
type testReserver struct {
	reserved, most int64
	err            error // of Reserve
	noMore         bool  // TryReserve fails
}

func (r *testReserver) Reserve(n int64) error {
	if r.err != nil {
		return r.err
	}
	r.reserved += n
	r.most = max(r.most, r.reserved)
	return nil
}

func (r *testReserver) TryReserve(n int64) bool { return !r.noMore && r.Reserve(n) == nil }

func (r *testReserver) Release(n int64) { r.reserved -= n }
