package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// tag is on each dashboard. The links of a dashboard lead to all others with it.
const tag = "larder"

// board is a dashboard: rows of panels.
type board struct {
	uid, title, about string
	rows              []row
	// more are variables beside the data source, job and instance.
	more []cog.Builder[dashboard.VariableModel]
	// traces replaces these three by the data source of traces.
	traces bool
}

type row struct {
	title  string
	panels []panel
}

// panel shows queries. about says what a reader should conclude from it.
type panel struct {
	title, about, unit string
	queries            []query
	kind               kind
	stacked            bool
	exemplars          bool // show traces as dots
	width              uint32
}

// kind is how a panel shows its queries.
type kind int

const (
	lines kind = iota
	oneNumber
	traceTable
	waterfall
)

// query is an expression of PromQL or TraceQL, and what its series are called.
type query struct{ legend, expr string }

// targets are the queries of a panel as Grafana has them.
type targets = []cog.Builder[variants.Dataquery]

// graph returns a panel with a line for each series.
func graph(title, about, unit string, queries ...query) panel {
	return panel{title: title, about: about, unit: unit, queries: queries, width: 8}
}

// number returns a panel with one number.
func number(title, about, unit, expr string) panel {
	return panel{title: title, about: about, unit: unit, queries: []query{{"", expr}},
		kind: oneNumber, width: 4}
}

// stack adds the lines up.
func (p panel) stack() panel { p.stacked = true; return p }

// wide makes the panel half as wide as the dashboard.
func (p panel) wide() panel { p.width = 12; return p }

// withExemplars shows the traces of single requests in the panel. A click on one opens it.
func (p panel) withExemplars() panel { p.exemplars = true; return p }

func (b *board) build() (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title).
		Uid(b.uid).Description(b.about).Tags([]string{tag}).Timezone("browser").
		Time("now-3h", "now").Refresh("1m").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("larder").
			Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{tag}).AsDropdown(true).
			IncludeVars(true).KeepTime(true))
	if b.traces {
		d.WithVariable(dashboard.NewDatasourceVariableBuilder("traces").
			Label("Traces").Type("tempo"))
	} else {
		d.WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").
			Label("Metrics").Type("prometheus")).
			WithVariable(labelVariable("job", "Job", "larder_build_info")).
			WithVariable(labelVariable("instance", "Instance", `larder_build_info{job=~"$job"}`))
	}
	for _, v := range b.more {
		d.WithVariable(v)
	}
	for _, r := range b.rows {
		d.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			d.WithPanel(p.build(b.traces))
		}
	}
	return d.Build()
}

// labelVariable lets a reader choose among the values of a label; All is chosen first.
func labelVariable(name, label, metric string) *dashboard.QueryVariableBuilder {
	query := "label_values(" + metric + ", " + name + ")"
	all := "All"
	value := "$__all"
	return dashboard.NewQueryVariableBuilder(name).Label(label).
		Query(dashboard.StringOrMap{String: &query}).Datasource(metrics()).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).IncludeAll(true).AllValue(".+").
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{String: &all},
			Value: dashboard.StringOrArrayOfString{String: &value},
		})
}

// metrics is the data source of metrics that a variable chooses.
func metrics() common.DataSourceRef { return source("prometheus", "$datasource") }

// spans is the data source of traces that a variable chooses.
func spans() common.DataSourceRef { return source("tempo", "$traces") }

func source(kind, uid string) common.DataSourceRef {
	return common.DataSourceRef{Type: &kind, Uid: &uid}
}

func (p panel) build(traces bool) cog.Builder[dashboard.Panel] {
	var all targets
	from := metrics()
	if traces {
		from = spans()
	}
	for i, q := range p.queries {
		id := string(rune('A' + i))
		if traces {
			all = append(all, traceQL(id, q.expr))
			continue
		}
		target := prometheus.NewDataqueryBuilder().RefId(id).Expr(q.expr).
			LegendFormat(q.legend).Datasource(metrics())
		if p.kind == oneNumber {
			target.Instant()
		} else {
			target.Range().Exemplar(p.exemplars)
		}
		all = append(all, target)
	}
	switch p.kind {
	case traceTable, waterfall:
		return p.tracePanel(all)
	case oneNumber:
		return stat.NewPanelBuilder().Title(p.title).Description(p.about).Unit(p.unit).
			Datasource(from).Targets(all).Span(p.width).Height(4).
			ColorMode(common.BigValueColorModeNone).GraphMode(common.BigValueGraphModeNone)
	}
	stacking, fill := common.StackingModeNone, 0.0
	if p.stacked {
		stacking, fill = common.StackingModeNormal, 40
	}
	return timeseries.NewPanelBuilder().Title(p.title).Description(p.about).Unit(p.unit).
		Datasource(from).Targets(all).Span(p.width).Height(8).Min(0).
		LineWidth(1).FillOpacity(fill).ShowPoints(common.VisibilityModeNever).
		Stacking(common.NewStackingConfigBuilder().Mode(stacking)).
		Tooltip(common.NewVizTooltipOptionsBuilder().
			Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).
			DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom))
}
