package matcher

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/intake"
	"larder/store/storepb"
)

// matching is a request with one matcher.
func matching(t storepb.LabelMatcher_Type, value string) *storepb.LabelNamesRequest {
	return &storepb.LabelNamesRequest{Matchers: []*storepb.LabelMatcher{{Type: t, Name: "pod", Value: value}}}
}

// TestTextsAreBounded: messages and what they compile to fit into their account together, small requests find room beside large ones, and whatever comes
// of a request, it leaves nothing behind.
func TestTextsAreBounded(t *testing.T) {
	a := NewCompiler(intake.NewAccount(16<<20, nil))
	take := func(req *storepb.LabelNamesRequest) (*Budget, error) {
		held := a.Open(t.Context())
		err := held.ReserveMessage(req, req.Matchers)
		if err == nil {
			_, err = Parse(nil, held, req.Matchers)
		}
		return held, err
	}
	var all []*Budget
	for {
		held, err := take(matching(storepb.LabelMatcher_EQ, strings.Repeat("a", 1<<20)))
		all = append(all, held)
		if err != nil {
			if s := status.Convert(err); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "--store.request-bytes") {
				t.Errorf("got %v, want ResourceExhausted that names --store.request-bytes", s)
			}
			break
		}
	}
	if n := len(all) - 1; n != 11 {
		t.Errorf("%d requests of 1 MiB were taken beside one another, want 11: three quarters of 16", n)
	}
	small, err := take(matching(storepb.LabelMatcher_RE, "a.*b"))
	if err != nil {
		t.Errorf("a small request found no room: %v", err)
	}
	for _, held := range append(all, small) {
		held.Close()
	}
	if n := a.account.InUse(); n != 0 {
		t.Errorf("%d bytes are in use by nobody", n)
	}

	const noCode = codes.Unknown // the expression is the client's mistake, and package store says so
	for what, want := range map[string]codes.Code{
		"(":                                      noCode,
		strings.Repeat(`\pL`, 80):                noCode,
		values(30_000, `10\.0\.%d\.1`):           codes.ResourceExhausted, // half a megabyte takes more than 32 MiB to compile
		values(3_000, `10\.0\.%d\.1`):            codes.OK,
		"(" + values(50_000, "pod-%d") + ")":     codes.OK,
		strings.Repeat(`\pL`, 70) + "(a{900})":   noCode,
		values(8_000, `a\.%d`) + "(":             noCode,
		values(200_000, "a-value-that-is-%d"):    codes.ResourceExhausted,
		strings.Repeat("(a{1000})|", 10) + "b.*": codes.OK,
	} {
		held, err := take(matching(storepb.LabelMatcher_RE, what))
		if code := status.Code(err); code != want {
			t.Errorf("%.60s...: got %.300v, want %s", what, err, want)
		}
		held.Close()
		if n := a.account.InUse(); n != 0 {
			t.Errorf("%.60s...: %d bytes are left in use", what, n)
		}
	}
}

// TestLargeExpressionsAreCompiledOneAtATime, and who waits for that hears that its client is gone.
func TestLargeExpressionsAreCompiledOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewCompiler(intake.NewAccount(16<<20, nil))
		large := strings.Repeat("a.", 20<<10)
		done, err := a.Open(t.Context()).parse(large)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended, gone error
		var wg sync.WaitGroup
		wg.Go(func() { _, gone = a.Open(ctx).parse(large) })
		var after func()
		wg.Go(func() { after, ended = a.Open(t.Context()).parse(large) })
		synctest.Wait()
		if ended != nil || after != nil {
			t.Error("two are compiled at once")
		}
		cancel()
		synctest.Wait()
		if status.Code(gone) != codes.Canceled {
			t.Errorf("whose client is gone got %v", gone)
		}
		done()
		wg.Wait()
		if ended != nil {
			t.Fatal(ended)
		}
		after()
	})
}
