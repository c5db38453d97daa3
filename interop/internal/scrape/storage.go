package scrape

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Storage is a TSDB to which scrapes are written as Prometheus writes them, at times that the test
// chooses. Prometheus's engine evaluates PromQL over it.
type Storage struct {
	db     *tsdb.DB
	engine *promql.Engine
	target []labels.Label
}

// NewStorage makes an empty storage in dir. target are the labels of the scraped target, such as
// job and instance.
func NewStorage(dir string, target ...labels.Label) (*Storage, error) {
	db, err := tsdb.Open(dir, nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return nil, err
	}
	return &Storage{
		db:     db,
		target: target,
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute}),
	}, nil
}

// Close closes it.
func (s *Storage) Close() error { return errors.Join(s.engine.Close(), s.db.Close()) }

// Add writes a scrape of the given time, with up{} = 1. Of a histogram it writes both the classic
// and the native form. A nil scrape is a failed one: only up{} = 0 is written.
func (s *Storage) Add(raw *Raw, at time.Time) error {
	app := s.db.Appender(context.Background())
	up := 0.0
	if raw != nil {
		up = 1
		if err := s.append(app, raw, at.UnixMilli()); err != nil {
			return errors.Join(err, app.Rollback())
		}
	}
	if _, err := app.Append(0, s.labels(labels.FromStrings(labels.MetricName, "up")),
		at.UnixMilli(), up); err != nil {
		return errors.Join(err, app.Rollback())
	}
	return app.Commit()
}

func (s *Storage) labels(of labels.Labels) labels.Labels {
	b := labels.NewBuilder(of)
	for _, l := range s.target {
		b.Set(l.Name, l.Value)
	}
	return b.Labels()
}

// Eval evaluates an instant query and returns its series.
func (s *Storage) Eval(expr string, at time.Time) (promql.Vector, error) {
	q, err := s.engine.NewInstantQuery(context.Background(), s.db, nil, expr, at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(context.Background())
	if res.Err != nil {
		return nil, res.Err
	}
	v, err := res.Vector()
	if err != nil {
		return nil, fmt.Errorf("%s is a %s: %w", expr, res.Value.Type(), err)
	}
	out := make(promql.Vector, len(v)) // the query's memory is reused
	for i := range v {
		out[i] = promql.Sample{T: v[i].T, F: v[i].F, H: v[i].H, Metric: v[i].Metric.Copy()}
		if v[i].H != nil {
			out[i].H = v[i].H.Copy()
		}
	}
	return out, nil
}

// Find returns how many series a selector finds, ignoring its range and offset.
func (s *Storage) Find(sel *parser.VectorSelector, at time.Time) (int, error) {
	bare := &parser.VectorSelector{Name: sel.Name, LabelMatchers: sel.LabelMatchers}
	v, err := s.Eval(bare.String(), at)
	return len(v), err
}

func (s *Storage) append(app storage.Appender, raw *Raw, t int64) error {
	p, err := textparse.New(
		raw.Body, raw.ContentType, labels.NewSymbolTable(),
		textparse.ParserOptions{KeepClassicOnClassicAndNativeHistograms: true},
	)
	if err != nil {
		return err
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var l labels.Labels
		switch entry {
		case textparse.EntrySeries:
			_, _, v := p.Series()
			p.Labels(&l)
			_, err = app.Append(0, s.labels(l), t, v)
		case textparse.EntryHistogram:
			_, _, h, fh := p.Histogram()
			p.Labels(&l)
			_, err = app.AppendHistogram(0, s.labels(l), t, h, fh)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
}
