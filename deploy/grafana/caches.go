package main

// caches shows what each cache saves, by kind of data and tier.
func caches() *board {
	hits := func(kind string) query {
		return query{"{{tier}}", sum("tier", rate("larder_pages_hits_total", `kind="`+kind+`"`)) +
			" / ignoring(tier) group_left " +
			sum("", rate("larder_pages_touched_total", `kind="`+kind+`"`))}
	}
	return &board{
		uid: "larder-caches", title: "larder / Caches",
		about: "What do the caches save, and are they large enough?",
		rows: []row{
			{"Pages", []panel{
				graph("Index pages by tier", "Part of the pages that requests needed. What is "+
					"missing from 100 % came from the bucket.",
					"percentunit", hits("index")).stack(),
				graph("Chunk pages by tier", "Part of the pages that requests needed.",
					"percentunit", hits("chunks")).stack(),
				graph(
					"Pages from the bucket",
					"Fetched, or read by another request at that moment.",
					"short",
					query{
						"{{kind}} fetched",
						sum("kind", rate("larder_pages_fetched_total", "")),
					},
					query{"{{kind}} coalesced", sum("kind",
						rate("larder_pages_coalesced_total", ""))},
				),
			}},
			{"Other caches", []panel{
				graph(
					"Hit ratio by look-ups",
					"Series sets and label answers spare all reads of "+
						"a block.",
					"percentunit",
					query{"{{cache}} {{tier}}", ratio(
						"cache,tier",
						rate(
							"larder_cache_hits_total",
							"",
						),
						rate("larder_cache_requests_total", ""),
					)},
				),
				graph(
					"Expanded postings",
					"Part of the look-ups that found a value.",
					"percentunit",
					query{
						"{{tier}}",
						sum("tier", rate("larder_expanded_postings_hits_total", "")) +
							" / ignoring(tier) group_left " +
							sum("", rate("larder_expanded_postings_requests_total", "")),
					},
				).stack(),
				graph("Bytes from caches", "Bytes of values that were found.", "Bps",
					query{"{{cache}} {{tier}}", sum("cache,tier",
						rate("larder_cache_hit_bytes_total", ""))}).stack(),
			}},
			{"Size", []panel{
				graph(
					"Filled",
					"Part of the limit that is used.",
					"percentunit",
					query{
						"{{cache}} {{tier}}",
						sum("cache,tier", series("larder_cache_bytes", "")) +
							" / " + sum("cache,tier", series("larder_cache_max_bytes", "")),
					},
				),
				graph("Evictions of useful values", "Values that were asked for again, and then "+
					"evicted. Many of them: the cache is too small.", "short",
					query{"{{cache}} {{tier}}", sum("cache,tier",
						rate("larder_cache_evictions_total", ""))}),
				graph("Not admitted", "Values that were not cached. Policy: not asked for again.",
					"short",
					query{"{{cache}} {{tier}} {{reason}}", sum("cache,tier,reason",
						rate("larder_cache_rejected_total", ""))}),
			}},
			{"Memcached", []panel{
				graph("Time of operations, 99 %", "", "s",
					query{"{{name}} {{operation}}", quantile(0.99, "name,operation",
						"thanos_memcached_operation_duration_seconds", "")}),
				graph("Failures", "By client, operation and reason.", "reqps",
					query{"{{name}} {{operation}} {{reason}}", sum("name,operation,reason",
						rate("thanos_memcached_operation_failures_total", ""))}),
				graph("Breakers", "2: the server is not used. 1: the next use tries it.", "short",
					query{"{{name}} {{server}} {{direction}}",
						series("larder_memcached_breaker_state", "")}),
			}},
			{"Disk", []panel{
				graph("Reads, 99 %", "Reads that returned in time.", "s",
					query{"read", quantile(0.99, "", "larder_disk_cache_read_seconds", "")}),
				graph("Bytes", "Moved: written again because they are in use.", "Bps",
					query{"read", sum("", rate("larder_disk_cache_read_bytes_total", ""))},
					query{"written", sum("", rate("larder_disk_cache_written_bytes_total", ""))},
					query{"moved", sum("", rate("larder_disk_cache_moved_bytes_total", ""))}),
				graph("Health", "1: used. 0: turned off until it is well.", "short",
					query{"{{instance}} readable", series("larder_disk_cache_readable", "")},
					query{"{{instance}} writable", series("larder_disk_cache_writable", "")}),
			}},
		},
	}
}
