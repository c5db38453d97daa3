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
	return &storepb.LabelNamesRequest{
		Matchers: []*storepb.LabelMatcher{{Type: t, Name: "pod", Value: value}},
	}
}

// TestMessagesAndExpressionsAreBounded: messages and what their expressions compile to share one
// account, small requests fit beside large ones, and every request releases everything.
func TestMessagesAndExpressionsAreBounded(t *testing.T) {
	compiler := NewCompiler(intake.NewAccount(16<<20, nil))
	parse := func(req *storepb.LabelNamesRequest) (*Budget, error) {
		budget := compiler.Open(t.Context())
		err := budget.ReserveMessage(req, req.Matchers)
		if err == nil {
			_, err = Parse(nil, budget, req.Matchers)
		}
		return budget, err
	}
	var all []*Budget
	for {
		budget, err := parse(matching(storepb.LabelMatcher_EQ, strings.Repeat("a", 1<<20)))
		all = append(all, budget)
		if err != nil {
			if status.Code(err) != codes.ResourceExhausted ||
				!strings.Contains(err.Error(), "--store.request-bytes") {
				t.Errorf("got %v, want ResourceExhausted that names --store.request-bytes", err)
			}
			break
		}
	}
	if n := len(all) - 1; n != 11 {
		t.Errorf("%d requests of 1 MiB fit together, want 11: three quarters of 16 MiB", n)
	}
	small, err := parse(matching(storepb.LabelMatcher_RE, "a.*b"))
	if err != nil {
		t.Errorf("a small request does not fit: %v", err)
	}
	for _, budget := range append(all, small) {
		budget.Close()
	}
	if n := compiler.account.InUse(); n != 0 {
		t.Errorf("%d bytes are still reserved after all requests have ended", n)
	}

	// The client's mistake: package store adds the code.
	const noCode = codes.Unknown
	for what, want := range map[string]codes.Code{
		"(":                       noCode,
		strings.Repeat(`\pL`, 80): noCode,
		// Half a megabyte needs more than 32 MiB to compile.
		values(30_000, `10\.0\.%d\.1`):           codes.ResourceExhausted,
		values(3_000, `10\.0\.%d\.1`):            codes.OK,
		"(" + values(50_000, "pod-%d") + ")":     codes.OK,
		strings.Repeat(`\pL`, 70) + "(a{900})":   noCode,
		values(8_000, `a\.%d`) + "(":             noCode,
		values(200_000, "a-value-that-is-%d"):    codes.ResourceExhausted,
		strings.Repeat("(a{1000})|", 10) + "b.*": codes.OK,
	} {
		budget, err := parse(matching(storepb.LabelMatcher_RE, what))
		if code := status.Code(err); code != want {
			t.Errorf("%.60s...: got %.300v, want %s", what, err, want)
		}
		budget.Close()
		if n := compiler.account.InUse(); n != 0 {
			t.Errorf("%.60s...: %d bytes are still reserved", what, n)
		}
	}
}

// TestLargeExpressionsAreCompiledOneAtATime: a request that waits for its turn ends when its client
// cancels.
func TestLargeExpressionsAreCompiledOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		compiler := NewCompiler(intake.NewAccount(16<<20, nil))
		large := strings.Repeat("a.", 20<<10)
		release, err := compiler.Open(t.Context()).reserveParsing(large)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var second, cancelled error
		var wg sync.WaitGroup
		wg.Go(func() { _, cancelled = compiler.Open(ctx).reserveParsing(large) })
		var releaseSecond func()
		wg.Go(func() { releaseSecond, second = compiler.Open(t.Context()).reserveParsing(large) })
		synctest.Wait()
		if second != nil || releaseSecond != nil {
			t.Error("two large expressions are compiled at once")
		}
		cancel()
		synctest.Wait()
		if status.Code(cancelled) != codes.Canceled {
			t.Errorf("the cancelled request got %v, want Canceled", cancelled)
		}
		release()
		wg.Wait()
		if second != nil {
			t.Fatal(second)
		}
		releaseSecond()
	})
}
