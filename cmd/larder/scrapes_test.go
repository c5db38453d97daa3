package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"go.yaml.in/yaml/v3"
)

// rulesDir has the recording rules and alerts; dashboardsDir the dashboards.
var (
	rulesDir      = filepath.Join("..", "..", "deploy", "helm", "larder", "files")
	dashboardsDir = filepath.Join(rulesDir, "dashboards")
)

// rule is a recording rule or an alert.
type rule struct {
	Record, Alert, Expr, For string
	Annotations              map[string]string
}

// readRules reads a file of rulesDir.
func readRules(t *testing.T, name string) []rule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rulesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var rules []rule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 5 {
		t.Fatalf("%s has %d rules", name, len(rules))
	}
	return rules
}

// scrapeStep is the time between two scrapes.
const scrapeStep = time.Minute

// scrapes is what a Prometheus has stored of one target, at times that the test chooses. It decides
// which alerts fire.
type scrapes struct {
	t      *testing.T
	db     *tsdb.DB
	engine *promql.Engine
	now    time.Time

	alerts []rule
	since  map[string]time.Time // when the expression of an alert began to have values
}

func newScrapes(t *testing.T) *scrapes {
	t.Helper()
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &scrapes{
		t: t, db: db, now: time.Now(), since: map[string]time.Time{},
		alerts: readRules(t, "alerts.yaml"),
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: 1_000_000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{}),
		}),
	}
	t.Cleanup(func() {
		if err := errors.Join(s.engine.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// scrape stores the exposition of a target, and evaluates the alerts. "" is a target that is down.
func (s *scrapes) scrape(exposition string) {
	s.t.Helper()
	s.now = s.now.Add(scrapeStep)
	app := s.db.Appender(s.t.Context())
	up := 0.0
	if exposition != "" {
		up = 1
		if err := s.store(app, exposition); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := app.Append(0, s.labels(labels.FromStrings(labels.MetricName, "up")),
		s.now.UnixMilli(), up); err != nil {
		s.t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		s.t.Fatal(err)
	}
	for _, a := range s.alerts {
		if len(s.eval(a.Expr)) == 0 {
			delete(s.since, a.Alert)
		} else if _, ok := s.since[a.Alert]; !ok {
			s.since[a.Alert] = s.now
		}
	}
}

func (s *scrapes) store(app storage.Appender, exposition string) error {
	p, err := textparse.New(
		[]byte(exposition), "text/plain; version=0.0.4", labels.NewSymbolTable(),
		textparse.ParserOptions{},
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
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, v := p.Series()
		if _, err := app.Append(0, s.labels(l), s.now.UnixMilli(), v); err != nil {
			return err
		}
	}
}

func (s *scrapes) labels(of labels.Labels) labels.Labels {
	b := labels.NewBuilder(of)
	b.Set("job", "larder")
	b.Set("instance", "larder-0")
	return b.Labels()
}

// eval returns the values of an expression now.
func (s *scrapes) eval(expr string) promql.Vector {
	s.t.Helper()
	q, err := s.engine.NewInstantQuery(s.t.Context(), s.db, nil, expr, s.now)
	if err != nil {
		s.t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	v, err := q.Exec(s.t.Context()).Vector()
	if err != nil {
		s.t.Fatalf("%s: %v", expr, err)
	}
	return v[:len(v):len(v)]
}

// firing returns the alerts whose expressions have had values for as long as they ask for.
func (s *scrapes) firing() map[string]bool {
	s.t.Helper()
	firing := map[string]bool{}
	for _, a := range s.alerts {
		since, ok := s.since[a.Alert]
		wait, err := time.ParseDuration("0" + a.For)
		if a.For != "" && err != nil {
			s.t.Fatal(err)
		}
		if ok && s.now.Sub(since) >= wait {
			firing[a.Alert] = true
		}
	}
	return firing
}

// metrics returns what the process exposes, "" if it does not answer.
func (p *process) metrics() string {
	resp, err := http.Get(p.url + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var text strings.Builder
	if _, err := io.Copy(&text, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return text.String()
}
