package neighbour

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// serve answers every request with the body.
func serve(t *testing.T, code int, body string) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return NewClient(s.URL)
}

func TestResults(t *testing.T) {
	ask := func(body string) *Result {
		t.Helper()
		r, err := serve(
			t, http.StatusOK, `{"status":"success","data":`+body+`}`,
		).Instant(context.Background(), "up", 1500, Params{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const base = `{"resultType":"vector","result":[{"metric":{"b":"1"},"value":[1.5,"2"]},{"metric":{"a":"x"},"value":[1.5,"NaN"]}]}`
	f := func(name, body string, tolerance float64, want string) {
		t.Helper()
		got := Diff(ask(base), ask(body), tolerance)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	f(
		"the same in another order",
		`{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.500,"NaN"]},{"metric":{"b":"1"},"value":[1.5,"2"]}]}`,
		0, "",
	)
	f("another type", `{"resultType":"matrix","result":[]}`, 0, "type")
	f(
		"a series less",
		`{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.5,"NaN"]}]}`, 0,
		`{b="1"} is missing`,
	)
	f(
		"another label",
		`{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.5,"NaN"]},{"metric":{"c":"1"},"value":[1.5,"2"]}]}`,
		0, `got {c="1"}`,
	)
	f(
		"another time",
		`{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.501,"NaN"]},{"metric":{"b":"1"},"value":[1.5,"2"]}]}`,
		0, "want time 1500, got 1501",
	)
	const near = `{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.5,"NaN"]},{"metric":{"b":"1"},"value":[1.5,"2.0000000000000004"]}]}`
	f("another value", near, 0, "got 2.0000000000000004")
	f("a value that is near", near, 1e-12, "")
	f(
		"a histogram for a float",
		`{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[1.5,"NaN"]},{"metric":{"b":"1"},"histogram":[1.5,{"count":"2"}]}]}`,
		0, `got {"count":"2"}`,
	)
}

func TestFailures(t *testing.T) {
	c := serve(
		t, http.StatusUnprocessableEntity,
		`{"status":"error","errorType":"execution","error":"too much"}`,
	)
	r, err := c.Range(context.Background(), "up", 0, 1000, 1000, Params{})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK() || r.Code != 422 || r.ErrorType != "execution" || r.Error != "too much" {
		t.Errorf("got %+v", r)
	}
	if _, err := serve(t, http.StatusBadGateway, "<html>").Instant(context.Background(), "up", 0,
		Params{}); err == nil ||
		!strings.Contains(err.Error(), "502") {
		t.Errorf("got error %v, want one that names the status", err)
	}
}
