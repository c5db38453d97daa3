package main

// tenants shows which tenants use larder, what they cost and how long they wait.
func tenants() *board {
	by := func(expr string) []query { return []query{{"{{tenant}}", sum("tenant", expr)}} }
	return &board{
		uid: "larder-tenants", title: "larder / Tenants",
		about: "Who uses larder, what does it cost, and who waits? The largest tenants have " +
			"names; all others are other.",
		rows: []row{
			{"Use", []panel{
				graph("Requests", "Requests that ended.", "reqps",
					by(rate("larder_tenant_requests_total", ""))...).stack(),
				graph("Bytes used", "Of pages, from caches or the bucket.", "Bps",
					by(rate("larder_tenant_bytes_total", `kind="touched"`))...).stack(),
				graph("Bytes sent", "Of Series responses.", "Bps",
					by(rate("larder_tenant_bytes_total", `kind="sent"`))...).stack(),
			}},
			{"Cost", []panel{
				graph("Reads of the bucket", "That requests of the tenant started.", "reqps",
					by(rate("larder_tenant_bucket_requests_total", ""))...).stack(),
				graph(
					"Reads, USD a month",
					"At this rate and the list price of S3.",
					"currencyUSD",
					query{"{{tenant}}", sum("tenant",
						rate("larder_tenant_bucket_requests_total", "")) +
						" * " + priceOfRead + " * " + month},
				).stack(),
				graph("Bytes read from the bucket", "", "Bps",
					by(rate("larder_tenant_bytes_total", `kind="fetched"`))...).stack(),
			}},
			{"Waits", []panel{
				graph("Wait for a turn", "Mean wait of a request.", "s",
					query{"{{tenant}}", ratio("tenant",
						rate("larder_tenant_wait_seconds_total", `on="turn"`),
						rate("larder_tenant_requests_total", ""))}),
				graph("Wait for pages", "Mean of a request, added up over its blocks.", "s",
					query{"{{tenant}}", ratio("tenant",
						rate("larder_tenant_wait_seconds_total", `on="pages"`),
						rate("larder_tenant_requests_total", ""))}),
				graph(
					"Requests over budget",
					"Part of the requests that exceeded a latency budget.",
					"percentunit",
					query{"{{tenant}}", ratio("tenant",
						rate("larder_tenant_budget_overruns_total", ""),
						rate("larder_tenant_requests_total", ""))},
				),
				graph("Rejected by limits", "Limits of tenants: docs/tenants.md.", "reqps",
					query{"{{tenant}} {{reason}}", sum("tenant,reason",
						rate("thanos_bucket_store_queries_dropped_total", ""))}),
				graph("Series of a request, 99 %", "Large answers need memory.", "short",
					query{"{{tenant}}", quantile(0.99, "tenant",
						"thanos_bucket_store_series_result_series", "")}),
				graph("Blocks of a request, 99 %", "Long ranges need many blocks.", "short",
					query{"{{tenant}}", quantile(0.99, "tenant",
						"thanos_bucket_store_series_blocks_queried", "")}),
				graph(
					"Tenants with names",
					"--store.metrics.tenants, and those of the limits file.",
					"short",
					query{"{{instance}}", series("larder_metrics_tenants", "")},
				),
			}},
		},
	}
}
