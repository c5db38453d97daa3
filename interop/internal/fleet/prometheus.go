package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"

	"larder/interop/internal/neighbour"
)

// Prometheus evaluates PromQL over the blocks of a folder. It opens them read-only as Prometheus
// does, and configures Prometheus's engine as Thanos does.
type Prometheus struct {
	db     *tsdb.DBReadOnly
	blocks []tsdb.BlockReader
	engine *promql.Engine
	// external labels are added to every series, because Prometheus's blocks do not contain them
	// and Thanos shows them.
	external labels.Labels
}

// OpenPrometheus opens a folder of blocks. The TSDB writes its own files into scratch.
func OpenPrometheus(dir, scratch string, external map[string]string) (*Prometheus, error) {
	db, err := tsdb.OpenDBReadOnly(dir, scratch, nil)
	if err != nil {
		return nil, err
	}
	blocks, err := db.Blocks()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Prometheus{
		db:       db,
		blocks:   blocks,
		external: labels.FromMap(external),
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: math.MaxInt32, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
			EnableAtModifier: true, EnableNegativeOffset: true,
			NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		}),
	}, nil
}

// Close closes the blocks and stops the engine.
func (p *Prometheus) Close() error { return errors.Join(p.engine.Close(), p.db.Close()) }

// Instant evaluates a query at a time.
func (p *Prometheus) Instant(
	ctx context.Context, query string, t int64,
) (*neighbour.Result, error) {
	q, err := p.engine.NewInstantQuery(ctx, p, nil, query, time.UnixMilli(t))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return run(ctx, q)
}

// Range evaluates a query at start, start+step, ... end.
func (p *Prometheus) Range(
	ctx context.Context, query string, start, end, step int64,
) (*neighbour.Result, error) {
	q, err := p.engine.NewRangeQuery(
		ctx, p, nil, query, time.UnixMilli(start), time.UnixMilli(end),
		time.Duration(step)*time.Millisecond,
	)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return run(ctx, q)
}

func run(ctx context.Context, q promql.Query) (*neighbour.Result, error) {
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return &neighbour.Result{
			Answer: neighbour.Answer{Status: "error", Error: res.Err.Error()},
		}, nil
	}
	raw, err := json.Marshal(res.Value)
	if err != nil {
		return nil, err
	}
	r, err := neighbour.ParseResult(string(res.Value.Type()), raw)
	if err != nil {
		return nil, err
	}
	r.Status = "success"
	return r, nil
}

// Querier returns what the engine reads series from.
func (p *Prometheus) Querier(mint, maxt int64) (storage.Querier, error) {
	var qs []storage.Querier
	for _, b := range p.blocks {
		m := b.Meta()
		if m.MinTime > maxt || mint >= m.MaxTime {
			continue
		}
		q, err := tsdb.NewBlockQuerier(b, mint, maxt)
		if err != nil {
			return nil, err
		}
		qs = append(qs, q)
	}
	return &externalQuerier{
		Querier:  storage.NewMergeQuerier(qs, nil, storage.ChainedSeriesMerge),
		external: p.external,
	}, nil
}

// externalQuerier adds external labels to the series of a querier.
type externalQuerier struct {
	storage.Querier
	external labels.Labels
}

func (q *externalQuerier) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher,
) storage.SeriesSet {
	var inner []*labels.Matcher
	for _, m := range ms {
		if !q.external.Has(m.Name) {
			inner = append(inner, m)
		} else if !m.Matches(q.external.Get(m.Name)) {
			return storage.EmptySeriesSet()
		}
	}
	if len(inner) == 0 {
		// A store answers matchers that are all about external labels with nothing.
		return storage.EmptySeriesSet()
	}
	// Sorted, because the order of series decides the order of sums. Equal external labels keep it:
	// none of the fleet's label sets is a prefix of another.
	return &externalSet{
		SeriesSet: q.Querier.Select(ctx, true, hints, inner...),
		external:  q.external,
	}
}

type externalSet struct {
	storage.SeriesSet
	external labels.Labels
}

func (s *externalSet) At() storage.Series {
	x := s.SeriesSet.At()
	b := labels.NewBuilder(x.Labels())
	s.external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return externalSeries{x, b.Labels()}
}

func (s *externalSet) Warnings() annotations.Annotations { return s.SeriesSet.Warnings() }

type externalSeries struct {
	storage.Series
	labels labels.Labels
}

func (s externalSeries) Labels() labels.Labels { return s.labels }
