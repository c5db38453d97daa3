package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/tempo"
)

// service restricts each query to the service that the variable names.
const service = `resource.service.name="$service"`

// traces finds slow requests in Tempo, and shows where their time went. docs/observability.md
// explains the spans and attributes.
func traces() *board {
	spansOf := func(filter string) string { return "{" + service + " && " + filter + "}" }
	calls := spansOf(`name=~"thanos.Store/.*"`)
	over := func(q, spans, by string) string {
		if by != "" {
			by = " by (" + by + ")"
		}
		return spans + " | quantile_over_time(duration, " + q + ")" + by
	}
	return &board{
		uid: "larder-traces", title: "larder / Traces",
		about: "Which requests are slow, and where did their time go? Needs Tempo.",
		more: []cog.Builder[dashboard.VariableModel]{
			textVariable("service", "Service", "larder"),
			textVariable("least", "At least", "1s"),
			textVariable("trace", "Trace id", ""),
		},
		traces: true,
		rows: []row{
			{"All requests", []panel{
				graph("Time of requests, 99 %", "By call. Only sampled requests count.", "s",
					query{"", over("0.99", calls, "name")}),
				graph("Requests", "Sampled requests in a second, by tenant.", "reqps",
					query{"", calls + " | rate() by (span.larder.tenant)"}),
				graph("Failed requests", "Spans with an error, by call.", "reqps",
					query{"", spansOf(`name=~"thanos.Store/.*" && status=error`) +
						" | rate() by (name)"}),
			}},
			{"Where the time went", []panel{
				graph(
					"Stages, 90 %",
					"Spans of each stage: waits, reads and merging.",
					"s",
					query{
						"",
						over("0.9", spansOf("span.larder.stage!=nil"), "span.larder.stage"),
					},
				),
				graph("Reads of the bucket", "Quantiles, from the queue to the last byte.", "s",
					query{"", over("0.5, 0.9, 0.99", spansOf(`name="bucket_getrange"`), "")}),
				graph("Look-ups in memcached and on disk", "Quantiles.", "s",
					query{"", over("0.5, 0.9, 0.99", spansOf(`name="cache_getmulti"`), "")}),
			}},
			{"Slow requests: click one to see it below", []panel{
				search(
					"Slow requests",
					"With their tenant, matchers and number of bucket requests.",
					spansOf(`name=~"thanos.Store/.*" && duration>$least`)+
						" | select(span.larder.tenant, span.larder.matchers, "+
						"span.larder.bucket_requests, span.larder.blocks)",
				),
				search("Requests that waited for the bucket", "One of their reads was slow.",
					spansOf(`name=~"thanos.Store/.*" && duration>$least`)+` >> `+
						`{name="bucket_getrange" && duration>100ms}`),
				search("Requests that waited for their turn", "More memory or places would help.",
					spansOf(`name=~"thanos.Store/.*" && duration>$least`)+` >> `+
						`{name="store_query_gate_ismyturn" && duration>100ms}`),
				search("Slow blocks", "Blocks that took longest in a request.",
					spansOf(`name=~"block_.*" && duration>100ms`)),
			}},
			{"One trace", []panel{{
				title: "Trace $trace", about: "The spans of the trace that is chosen above.",
				queries: []query{{"", "$trace"}}, kind: waterfall, width: 24,
			}}},
		},
	}
}

// textVariable lets a reader type a value.
func textVariable(name, label, value string) cog.Builder[dashboard.VariableModel] {
	return dashboard.NewTextBoxVariableBuilder(name).Label(label).
		DefaultValue(dashboard.StringOrMap{String: &value}).
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{String: &value},
			Value: dashboard.StringOrArrayOfString{String: &value},
		})
}

// search returns a table of traces.
func search(title, about, traceQL string) panel {
	return panel{title: title, about: about, queries: []query{{"", traceQL}},
		kind: traceTable, width: 12}
}

// traceQL returns the target of a query in TraceQL.
func traceQL(id, text string) *tempo.DataqueryBuilder {
	return tempo.NewDataqueryBuilder().RefId(id).QueryType("traceql").Query(text).
		Limit(20).TableType(tempo.SearchTableTypeTraces).Datasource(spans())
}

// tracePanel returns a panel over a data source of traces, other than a graph.
func (p panel) tracePanel(targets targets) cog.Builder[dashboard.Panel] {
	if p.kind == waterfall {
		return dashboard.NewPanelBuilder().Type("traces").Title(p.title).Description(p.about).
			Datasource(spans()).Targets(targets).Span(p.width).Height(20)
	}
	open := "Show it below"
	return table.NewPanelBuilder().Title(p.title).Description(p.about).
		Datasource(spans()).Targets(targets).Span(p.width).Height(10).
		CellHeight(common.TableCellHeightSm).
		OverrideByName("traceID", []dashboard.DynamicConfigValue{{
			Id: "links", Value: []map[string]string{{
				"title": open,
				"url": "/d/larder-traces?${__url_time_range}&${traces:queryparam}" +
					"&var-service=$service&var-trace=${__value.raw}",
			}},
		}})
}
