package postings

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxChoices bounds the choices of one plan that are logged and traced.
	maxChoices = 16
	// maxChoiceName bounds the bytes of a label name in them.
	maxChoiceName = 128
)

// choice is what a plan decided about the matchers of a label name, and what it compared.
type choice struct {
	name string
	read bool // the lists are read; otherwise the matchers stay pending
	// known says that the lists were found. Otherwise finding them alone costs more than they are
	// worth, and the fields that follow are 0.
	known     bool
	lists     int
	listBytes int64
	series    int64 // upper bound of those in the lists
	// with is what reading the lists costs, and then the entries that are left. without is what
	// the entries cost without the lists. Both are 0 for the first group, which has to be read.
	with, without time.Duration
}

// String returns the choice as the log shows it.
func (c *choice) String() string {
	name, what := c.name, "pending"
	if len(name) > maxChoiceName {
		name = name[:maxChoiceName] + "..."
	}
	if c.read {
		what = "read"
	}
	switch {
	case !c.known:
		return fmt.Sprintf("%q %s, finding its lists costs too much", name, what)
	case c.without == 0:
		return fmt.Sprintf("%q %s, %d lists of %d bytes, up to %d series",
			name, what, c.lists, c.listBytes, c.series)
	}
	return fmt.Sprintf("%q %s, %d lists of %d bytes, up to %d series, costs %v with and %v without",
		name, what, c.lists, c.listBytes, c.series,
		c.with.Round(time.Microsecond), c.without.Round(time.Microsecond))
}

// choices collects the choices of a plan. nil collects nothing.
type choices []choice

// add adds what the plan decided about g, before w includes g. base says that g is the first group.
func (c *choices) add(p *planner, g *group, w *weighing, read, base bool) {
	if c == nil || len(*c) == maxChoices {
		return
	}
	one := choice{name: g.name, read: read, known: g.resolved}
	if g.resolved {
		one.lists, one.listBytes, one.series = g.count, g.bytes, g.refs
		if !base {
			one.without = time.Duration(p.scales.entries(w.candidates))
			one.with = time.Duration(p.scales.lists(&g.listing, w.extents) +
				p.scales.entries(w.after(g, p.series)))
		}
	}
	*c = append(*c, one)
}

// told reports whether the choices of a plan are wanted: by the log at level debug, or by the span
// of ctx.
func told(ctx context.Context, log *slog.Logger) bool {
	return log != nil && log.Enabled(ctx, slog.LevelDebug) ||
		trace.SpanFromContext(ctx).IsRecording()
}

// tell logs the choices of a plan at level debug, and adds them to the span of ctx.
func (c *choices) tell(ctx context.Context, log *slog.Logger, id ulid.ULID, s *Stats) {
	if log != nil && log.Enabled(ctx, slog.LevelDebug) {
		texts := make([]string, len(*c))
		for i := range *c {
			texts[i] = (*c)[i].String()
		}
		log.Log(ctx, slog.LevelDebug, "postings planned", "block", id.String(),
			"lists", s.Lists, "list_bytes", s.ListBytes, "pending", s.Pending,
			"choices", strings.Join(texts, "; "))
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	for _, one := range *c {
		span.AddEvent("postings_planned", trace.WithAttributes(
			attribute.String("block", id.String()), attribute.String("label", one.name),
			attribute.Bool("read", one.read), attribute.Bool("found", one.known),
			attribute.Int("lists", one.lists), attribute.Int64("list_bytes", one.listBytes),
			attribute.Int64("series", one.series),
			attribute.Int64("cost_with_us", one.with.Microseconds()),
			attribute.Int64("cost_without_us", one.without.Microseconds())))
	}
}
