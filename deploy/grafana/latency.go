package main

// latency shows where the time of requests goes.
func latency() *board {
	stage := func(q float64, method string) query {
		return query{"{{stage}}", quantile(q, "stage", "larder_stage_duration_seconds",
			`method="`+method+`"`)}
	}
	return &board{
		uid: "larder-latency", title: "larder / Latency",
		about: "Where does the time of requests go, and do they keep their budgets?",
		rows: []row{
			{"Against the budgets", []panel{
				graph("Requests over budget, Series",
					"Part of the requests that exceeded a budget, by the stage that exceeded it.",
					"percentunit", query{"{{stage}}", sum("stage",
						rate("larder_budget_overruns_total", `method="Series"`)) +
						" / ignoring(stage) group_left " + sum("",
						rate("grpc_server_handled_total", `grpc_method="Series"`))}),
				graph(
					"Budget used by stage, 99 %",
					"Time of a stage as a part of its budget. Above 100 % is an overrun.",
					"percentunit",
					query{"{{stage}}", "(" + quantile(0.99, "stage",
						"larder_stage_duration_seconds", `method="Series"`) +
						") / on (stage) (max by (stage) (" +
						series("larder_budget_seconds", `method="Series"`) + ") > 0)"},
				),
				graph("Overruns, label requests", "In a second, by the stage that exceeded it.",
					"reqps", query{"{{method}} {{stage}}", sum("method,stage",
						rate("larder_budget_overruns_total", `method=~"Label.*"`))}),
			}},
			{"Series requests", []panel{
				graph("Time to the first frame",
					"What a user waits before data arrives. Dots are traces: click one.", "s",
					query{"50 %", quantile(0.5, "", "larder_series_first_frame_seconds", "")},
					query{"90 %", quantile(0.9, "", "larder_series_first_frame_seconds", "")},
					query{"99 %", quantile(0.99, "", "larder_series_first_frame_seconds", "")}).
					withExemplars(),
				graph("Time of the whole request", "Dots are traces: click one.", "s",
					query{"50 %", quantile(0.5, "", "grpc_server_handling_seconds",
						`grpc_method="Series"`)},
					query{"90 %", quantile(0.9, "", "grpc_server_handling_seconds",
						`grpc_method="Series"`)},
					query{"99 %", quantile(0.99, "", "grpc_server_handling_seconds",
						`grpc_method="Series"`)}).withExemplars(),
				graph("Time spent by stage", "Seconds in a second. Stages overlap: chunks are "+
					"read while frames are sent.", "s",
					query{"{{stage}}", sum("stage",
						rate("larder_stage_duration_seconds_sum", `method="Series"`)) + " or " +
						"histogram_sum(" + sum("stage",
						rate("larder_stage_duration_seconds", `method="Series"`)) + ")"}).stack(),
				graph("Stages, 50 %", "The usual request.", "s", stage(0.5, "Series")).wide(),
				graph(
					"Stages, 99 %",
					"Gate: waits for a turn. Postings, series and chunks: mostly "+
						"the bucket. Flow control: a client that reads slowly. Dots are traces.",
					"s",
					stage(0.99, "Series"),
				).wide().withExemplars(),
			}},
			{"Label requests", []panel{
				graph("Label names, stages, 99 %", "Dots are traces: click one.", "s",
					stage(0.99, "LabelNames")).withExemplars(),
				graph("Label values, stages, 99 %", "Dots are traces: click one.", "s",
					stage(0.99, "LabelValues")).withExemplars(),
				graph("Time of the whole request, 99 %", "Dots are traces: click one.", "s",
					query{"{{grpc_method}}", quantile(
						0.99,
						"grpc_method",
						"grpc_server_handling_seconds",
						`grpc_method=~"Label.*"`,
					)}).withExemplars(),
			}},
			{"Waits", []panel{
				graph("Wait for a turn, 99 %", "Small requests have a lane of their own.", "s",
					query{"{{lane}}", quantile(0.99, "lane",
						"larder_request_allowance_wait_seconds", "")}),
				graph(
					"Requests that wait",
					"Now, by lane.",
					"short",
					query{
						"{{lane}}",
						sum("lane", series("larder_request_allowance_waiting", "")),
					},
				),
				graph(
					"Requests that began again",
					"They needed more memory than was free.",
					"reqps",
					query{
						"{{method}}",
						sum("method", rate("larder_requests_requeued_total", "")),
					},
				),
				graph("Work of a request", "Mean number of blocks and series.", "short",
					query{"blocks", mean("", "thanos_bucket_store_series_blocks_queried", "")},
					query{"series", mean("", "thanos_bucket_store_series_result_series", "")}),
				graph(
					"Building index headers, 99 %",
					"The first request of a block waits for it.",
					"s",
					query{
						"build",
						quantile(0.99, "", "larder_header_build_duration_seconds", ""),
					},
				),
				graph("Index headers", "Those that are open, and those that wait to be built.",
					"short",
					query{"open", sum("", series("larder_header_open", ""))},
					query{"queue", sum("", series("larder_header_build_queue", ""))}),
			}},
		},
	}
}
