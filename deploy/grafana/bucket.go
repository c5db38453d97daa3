package main

// List prices of S3 Standard in us-east-1, in USD for one request.
const (
	priceOfRead = "0.0000004"
	priceOfList = "0.000005"
	month       = "2592000" // seconds
)

const reads = `operation=~"get|get_range|attributes|exists"`

// bucket shows what larder asks of the object store, how it answers, and what that costs.
func bucket() *board {
	ops := "thanos_objstore_bucket_operations_total"
	perMonth := func(ops, price string) string { return "(" + ops + ") * " + price + " * " + month }
	return &board{
		uid: "larder-bucket", title: "larder / Object store",
		about: "What is asked of the object store, how does it answer, and what does it cost?",
		rows: []row{
			{"Cost", []panel{
				number("Requests, USD a month", "At the rate of now and the list prices of S3: "+
					"0.4 USD for a million reads, 5 USD for a million listings.", "currencyUSD",
					perMonth(sum("", rate(ops, reads)), priceOfRead)+" + "+
						perMonth(sum("", rate(ops, `operation="iter"`)), priceOfList)),
				number(
					"Reads for a Series request",
					"Mean number. Caches bring it down.",
					"short",
					sum("", rate("larder_bucket_reads_total", ""))+" / "+
						sum("", rate("grpc_server_handled_total", `grpc_method="Series"`)),
				),
				number("Bytes for a Series request", "Mean. Matters for traffic across zones.",
					"bytes", sum("", rate("larder_pages_fetched_bytes_total", ""))+" / "+
						sum("", rate("grpc_server_handled_total", `grpc_method="Series"`))),
			}},
			{"Requests", []panel{
				graph("Operations", "get_range: reads of indexes and chunks. iter: listings.",
					"reqps", query{"{{operation}}", sum("operation", rate(ops, ""))}).stack(),
				graph("Failures", "Before retries.", "reqps",
					query{"{{operation}}", sum("operation",
						rate("thanos_objstore_bucket_operation_failures_total", ""))}),
				graph("Time of operations, 99 %", "Until the last byte.", "s",
					query{"{{operation}}", quantile(0.99, "operation",
						"thanos_objstore_bucket_operation_duration_seconds", "")}),
				graph(
					"Ranged reads",
					"Of indexes and of chunks.",
					"reqps",
					query{
						"{{kind}}",
						sum("kind", rate("larder_bucket_reads_total", "")),
					},
				).stack(),
				graph("Bytes read", "Of index pages and chunk pages.", "Bps",
					query{"{{kind}}", sum("kind",
						rate("larder_pages_fetched_bytes_total", ""))}).stack(),
				graph("Size of a read", "Larger is cheaper, until it is slower.", "bytes",
					query{"50 %", quantile(0.5, "", "larder_bucket_read_bytes", "")},
					query{"99 %", quantile(0.99, "", "larder_bucket_read_bytes", "")}),
			}},
			{"When it does not answer", []panel{
				graph(
					"Slots",
					"Reads at once. The limit falls while the bucket throttles.",
					"short",
					query{"{{state}}", sum("state", series("larder_bucket_slots", ""))},
				),
				graph("Throttled", "Answers 503 and 429.", "reqps",
					query{"throttled", sum("", rate("larder_bucket_throttles_total", ""))}),
				graph("Retries", "Requests that repeat a failed one, by the failure.", "reqps",
					query{"{{reason}} {{result}}", sum("reason,result",
						rate("larder_bucket_retries_total", ""))}),
				graph("Failed after retries", "These fail requests.", "reqps",
					query{"{{reason}}", sum("reason", rate("larder_bucket_gave_up_total", ""))}),
				graph("Retries allowed", "At 0 retries wait, so that a failing bucket is not "+
					"overloaded.", "short",
					query{"{{instance}}", series("larder_bucket_retry_budget", "")}),
				graph("Syncs", "Attempts to read the list of blocks.", "reqps",
					query{"syncs", sum("", rate("thanos_blocks_meta_syncs_total", ""))},
					query{"failed", sum("", rate("thanos_blocks_meta_sync_failures_total", ""))}),
			}},
		},
	}
}
