package main

// failed are the codes of failures that may not be the client's fault.
const failed = `grpc_code=~"Aborted|Internal|Unavailable|Unknown|DataLoss|DeadlineExceeded"`

const storeCalls = `grpc_service="thanos.Store"`

// overview answers whether larder works, how much it does, and what limits it.
func overview() *board {
	return &board{
		uid: "larder-overview", title: "larder / Overview",
		about: "Does larder work, how much does it do, and what limits it?",
		rows: []row{
			{"Now", []panel{
				number("Ready", "Processes that answer requests.", "short",
					"sum("+series("thanos_status", `check="ready"`)+")"),
				number("Processes", "Processes that Prometheus scrapes.", "short",
					"count("+series("larder_build_info", "")+")"),
				number("Blocks", "Blocks that are served, added up over processes.", "short",
					sum("", series("thanos_bucket_store_blocks_loaded", ""))),
				number(
					"Failed requests",
					"Failures of larder, a block or the bucket in a second, and requests that "+
						"did not end before their deadline.",
					"reqps",
					sum("", rate("grpc_server_handled_total", storeCalls+","+failed)),
				),
				number("Waiting", "Series requests that wait for their turn.", "short",
					sum("", series("larder_series_gate_waiting", ""))),
				number("Bucket failures", "Part of the operations of the bucket that failed. "+
					"Each retry is an operation.", "percentunit",
					sum("", rate("thanos_objstore_bucket_operation_failures_total", ""))+" / "+
						sum("", rate("thanos_objstore_bucket_operations_total", ""))),
			}},
			{"Requests", []panel{
				graph("Requests", "Calls of Queriers that ended.", "reqps",
					query{"{{grpc_method}}",
						sum(
							"grpc_method",
							rate("grpc_server_handled_total", storeCalls),
						)}).stack(),
				graph(
					"Results",
					"Aborted, Internal and Unavailable are faults of larder, a block "+
						"or the bucket. DeadlineExceeded may be one. The log has lines of them.",
					"reqps",
					query{"{{grpc_code}}",
						sum("grpc_code", rate("grpc_server_handled_total", storeCalls))},
				).stack(),
				graph(
					"Time of Series requests",
					"With the client's reading. Dots are traces.",
					"s",
					query{"50 %", quantile(0.5, "", "grpc_server_handling_seconds",
						`grpc_method="Series"`)},
					query{"99 %", quantile(0.99, "", "grpc_server_handling_seconds",
						`grpc_method="Series"`)},
				).withExemplars(),
			}},
			{"What limits it", []panel{
				graph(
					"Series requests",
					"If requests wait, see the places and the memory.",
					"short",
					query{
						"running",
						sum("", series("thanos_bucket_store_series_gate_queries_in_flight", "")),
					},
					query{"waiting", sum("", series("larder_series_gate_waiting", ""))},
					query{
						"places",
						sum("", series("thanos_bucket_store_series_gate_queries_max", "")),
					},
				),
				graph(
					"Memory of requests",
					"The request allowance, --store.request-bytes.",
					"bytes",
					query{
						"{{state}}",
						sum("state", series("larder_request_allowance_bytes", "")),
					},
				),
				graph("Reads of the bucket", "A limit below 96 means that the bucket throttled.",
					"short",
					query{"{{state}}", sum("state", series("larder_bucket_slots", ""))}),
				graph("Resident memory", "What the operating system counts.", "bytes",
					query{"{{instance}}", series("process_resident_memory_bytes", "")}),
				graph("CPU", "Cores that are busy.", "short",
					query{"{{instance}}", rate("process_cpu_seconds_total", "")}),
				graph(
					"Rejected requests",
					"Because of memory, places or limits of tenants.",
					"reqps",
					query{"memory: {{reason}}",
						sum("reason", rate("larder_request_allowance_refused_total", ""))},
					query{"places: {{reason}}",
						sum("reason", rate("larder_series_gate_rejected_total", ""))},
					query{"limits: {{reason}}",
						sum("reason", rate("thanos_bucket_store_queries_dropped_total", ""))},
				),
			}},
			{"Blocks", []panel{
				graph(
					"Blocks of the bucket",
					"By what the last sync decided about them.",
					"short",
					query{"{{state}}", sum("state", series("thanos_blocks_meta_synced", ""))},
				),
				graph("Time since a complete sync", "Syncs that could not read everything "+
					"do not count.", "s",
					query{"{{instance}}", "time() - " +
						series("larder_catalog_last_complete_timestamp_seconds", "")}),
				graph("Data that did not verify", "Failed: a request ended with an error. "+
					"Mended: a second read was right.", "short",
					query{"{{kind}} {{outcome}}", sum(
						"kind,outcome",
						"increase("+series(
							"larder_corruptions_total",
							"",
						)+"[$__rate_interval])",
					)}),
			}},
			{"Shards", []panel{
				graph(
					"Epochs",
					"The oldest and the newest of all processes. They differ while the number of "+
						"shards changes. Next is 0 without a change.",
					"short",
					query{"oldest {{state}}", "min by (state) (" +
						series("larder_shard_epoch", "") + ")"},
					query{"newest {{state}}", "max by (state) (" +
						series("larder_shard_epoch", "") + ")"},
				),
				graph(
					"What a change waits for",
					"Members without the next epoch, new owners that have not confirmed their "+
						"blocks, and blocks that are served until then.",
					"short",
					query{"members lacking",
						"max(" + series("larder_shard_members_lacking", "") + ")"},
					query{"members unconfirmed",
						"max(" + series("larder_shard_members_unconfirmed", "") + ")"},
					query{"blocks leaving", sum("", series("larder_shard_blocks_leaving", ""))},
				),
				graph(
					"Members that cannot be right",
					"Started alone and duplicated: see the runbook. Silent: a peer does not "+
						"answer. Foreign: it belongs to another cluster.",
					"short",
					query{"started alone", sum("", series("larder_shard_started_alone", ""))},
					query{"duplicated", sum("", series("larder_shard_duplicates", ""))},
					query{"silent", sum("", series("larder_shard_silent_peers", ""))},
					query{"foreign", sum("", series("larder_shard_foreign_peers", ""))},
				),
			}},
		},
	}
}
