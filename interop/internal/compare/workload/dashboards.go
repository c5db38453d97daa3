package workload

import (
	"fmt"

	"larder/interop/internal/query"
)

// Dashboards are ten dashboards of the data set medium, each of the pods with one leading number,
// over six hours. Each has ten panels: 100 different requests, of 11 to 6,000 series.
func Dashboards() [][]query.Query {
	at := span{epoch + 18*hour, epoch + 24*hour - 1}
	var out [][]query.Query
	for i := range 10 {
		pods := fmt.Sprintf(`pod=~"pod-%d(|[0-9])"`, 10+i)
		out = append(out, []query.Query{
			values(at, "pod", `up`),
			series(at, `up{`+pods+`}`),
			series(at, `http_requests_total{`+pods+`}`),
			series(at, `http_requests_total{`+pods+`,code=~"5.."}`),
			series(at, `http_requests_total{`+pods+`,handler="/api/v1/orders"}`),
			series(at, `http_request_duration_seconds_bucket{`+pods+`}`),
			series(at, `http_request_duration_seconds_count{`+pods+`}`),
			series(at, `go_goroutines{`+pods+`}`),
			series(at, fmt.Sprintf(`{__name__=~"process_metric_0.",%s}`, pods)),
			series(at, fmt.Sprintf(`{pod="pod-%d"}`, 10+i)),
		})
	}
	return out
}

// RunIn are questions about the data set medium that ask for other metrics than the queries of the
// table. After them a process has memory and code that a request has used.
func RunIn() []Query {
	const pods = `{pod=~"pod-[2-6].*"}`
	return []Query{
		{Ask: series(twoDays(), `go_goroutines`+pods)},
		{Ask: series(lastBlock(), `http_request_duration_seconds_count`+pods)},
		{Ask: values(twoDays(), "pod", `go_goroutines`)},
	}
}
