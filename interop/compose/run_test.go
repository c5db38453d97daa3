package compose

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

// stage is where the services run: each has loopback ports instead of its own network, and folders
// instead of volumes.
type stage struct {
	t       *testing.T
	project project
	dir     string
	ports   map[string]string // by service:port
}

// at returns the loopback address of a service's port.
func (s *stage) at(service, port string) string {
	s.t.Helper()
	key := service + ":" + port
	if s.ports[key] == "" {
		addrs, err := process.FreePorts(1)
		if err != nil {
			s.t.Fatal(err)
		}
		s.ports[key] = addrs[0]
	}
	return s.ports[key]
}

// rewrite replaces the addresses in a text that a service reads.
func (s *stage) rewrite(service, text string) string {
	text = listens.ReplaceAllStringFunc(text, func(m string) string {
		return s.at(service, strings.TrimPrefix(m, "0.0.0.0:"))
	})
	return s.project.address().ReplaceAllStringFunc(text, func(m string) string {
		name, port, _ := strings.Cut(m, ":")
		return s.at(name, port)
	})
}

// args returns the arguments of a service: those of the compose file, with other addresses and
// other paths.
func (s *stage) args(name string) []string {
	s.t.Helper()
	svc := s.project.Services[name]
	var args []string
	for _, a := range svc.Command {
		args = append(args, s.rewrite(name, a))
	}
	for _, m := range svc.mounts(s.t) {
		local := filepath.Join(s.dir, m.source)
		if !m.volume {
			local = s.config(name, m.source)
		} else if err := os.MkdirAll(local, 0o755); err != nil {
			s.t.Fatal(err)
		}
		path := regexp.MustCompile(`(^|=)` + regexp.QuoteMeta(m.target) + `(/|$)`)
		used := false
		for i, a := range args {
			used = used || path.MatchString(a)
			args[i] = path.ReplaceAllString(a, "${1}"+local+"${2}")
		}
		if !used {
			s.t.Errorf("%s: no argument names %s, which is mounted", name, m.target)
		}
	}
	return args
}

// config copies a configuration file and replaces what differs here.
func (s *stage) config(service, name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		s.t.Fatal(err)
	}
	to := filepath.Join(s.dir, service+"-"+filepath.Base(name))
	// The test does not wait for a quarter of a minute.
	content := strings.ReplaceAll(s.rewrite(service, string(text)), "scrape_interval: 15s",
		"scrape_interval: 1s")
	if err := os.WriteFile(to, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return to
}

// start starts a service and waits until it is ready, or, if it is one that others need to have
// ended, until it has.
func (s *stage) start(name, bin string, args []string, probe func(context.Context) bool) {
	s.t.Helper()
	p, err := process.Start(s.t.Context(), process.Options{
		Name: name, Bin: bin, Args: args, Dir: s.t.TempDir(), Ready: probe,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", name, p.Log())
		}
	})
	if !s.mustEnd(name) {
		return
	}
	select {
	case <-p.Exited():
		if err := p.Err(); err != nil {
			s.t.Fatalf("%s: %v\n%s", name, err, p.Log())
		}
	case <-s.t.Context().Done():
		s.t.Fatalf("%s did not end", name)
	}
}

func (s *stage) mustEnd(name string) bool {
	for _, other := range s.project.Services {
		if other.DependsOn[name].Condition == "service_completed_successfully" {
			return true
		}
	}
	return false
}

// storage replaces versitygw by the S3 server of the other tests, filled with the same folder.
func (s *stage) storage(name string) (bin string, args []string) {
	s.t.Helper()
	var addr, key, root string
	for _, a := range s.args(name) {
		flag, value, _ := strings.Cut(a, "=")
		switch flag {
		case "--port":
			addr = value
		case "--access":
			key = value
		case "--secret", "--health", "posix", "--nometa":
		default:
			root = a
		}
	}
	const bucket = "bucket" // of bucket.yml; the demo calls its folder so
	return programs.S3(s.t), []string{
		"-listen=" + addr, "-access-key=" + key, "-bucket=" + bucket,
		"-load=" + filepath.Join(root, bucket),
	}
}

// run starts the services in order, except Grafana.
func (s *stage) run() {
	t := s.t
	t.Helper()
	larder, err := gateway.BuildLarder(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	ready := func(name, port string) func(context.Context) bool {
		return process.HTTP("http://" + s.at(name, port) + "/-/ready")
	}
	for _, name := range s.project.order(t) {
		switch svc := s.project.Services[name]; svc.program() {
		case "larder":
			var probe func(context.Context) bool
			if !s.mustEnd(name) {
				probe = ready(name, "10902")
			}
			s.start(name, larder, s.args(name), probe)
		case "versity/versitygw":
			bin, args := s.storage(name)
			s.start(name, bin, args, ready(name, "9000"))
		case "prom/prometheus":
			bin := programs.Debian(t, "prometheus", "prometheus")
			s.start(name, bin, s.args(name), ready(name, "9090"))
		case "quay.io/thanos/thanos":
			port := "10902"
			if slices.Contains(svc.Command, "query") {
				port = "9090"
			}
			s.start(name, programs.Thanos(t), s.args(name), ready(name, port))
		case "grafana/grafana": // see TestGrafana
		default:
			t.Errorf("%s: nothing runs image %s here", name, svc.Image)
		}
	}
}

// TestRun starts everything and asks the Querier what the README of the folder suggests.
func TestRun(t *testing.T) {
	s := &stage{t: t, project: load(t), dir: t.TempDir(), ports: map[string]string{}}
	s.run()
	querier := neighbour.NewClient("http://" + s.at("querier", "9090"))

	// No Prometheus ran half a day ago: these samples are from the bucket.
	const history = "sum by (cluster) (rate(http_requests_total[5m]))"
	then := time.Now().Add(-12 * time.Hour)
	eventually(t, querier, history, then, func(series []neighbour.Series) error {
		if len(series) != 2 || series[0].Labels != `{cluster="eu-west-1"}` ||
			series[1].Labels != `{cluster="us-east-1"}` {
			return fmt.Errorf("got %v, want the clusters eu-west-1 and us-east-1", series)
		}
		return nil
	})
	// What Prometheus scrapes comes by way of the sidecar.
	for _, job := range []string{"thanos-store", "thanos-sidecar", "thanos-query", "prometheus"} {
		up := fmt.Sprintf("up{cluster=%q,job=%q}", "compose", job)
		eventually(t, querier, up, time.Time{}, func(series []neighbour.Series) error {
			if len(series) != 1 || series[0].Points[0].Value != "1" {
				return fmt.Errorf("got %v, want one series with the value 1", series)
			}
			return nil
		})
	}
	stores, err := querier.Stores(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, st := range stores {
		if st.LastError != "" {
			t.Errorf("store %s: %s", st.Name, st.LastError)
		}
		found[st.Name] = st.Component
	}
	if found[s.at("larder", "10901")] != "store" || found[s.at("sidecar", "10901")] != "sidecar" {
		t.Errorf("the Querier's stores are %v, want larder and the sidecar", found)
	}
}

// eventually repeats an instant query, at the given time or now, until its answer is accepted.
func eventually(
	t *testing.T, querier *neighbour.Client, query string, at time.Time,
	accept func([]neighbour.Series) error,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		when := at
		if when.IsZero() {
			when = time.Now()
		}
		res, err := querier.Instant(ctx, query, when.UnixMilli(), neighbour.Params{})
		if err == nil && !res.OK() {
			err = fmt.Errorf("%s: %s", res.ErrorType, res.Error)
		}
		if err == nil {
			err = accept(res.Series)
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", query, err)
		case <-tick.C:
		}
	}
}
