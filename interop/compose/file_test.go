package compose

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const folder = "../../deploy/compose"

// project is the part of the compose specification that the file uses. Other keys are errors, so
// that a misspelt one is found.
type project struct {
	Name     string
	Larder   any `yaml:"x-larder"`
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image string
	Build struct {
		Context string
	}
	Command     []string
	User        string
	Environment map[string]string
	Volumes     []string
	Ports       []string
	ReadOnly    bool   `yaml:"read_only"`
	MemLimit    string `yaml:"mem_limit"`
	Restart     string
	DependsOn   map[string]struct {
		Condition string
	} `yaml:"depends_on"`
}

// mount is what a service sees at a path: a file or folder beside the compose file, or a volume.
type mount struct {
	source, target string
	volume         bool
}

func (s service) mounts(t *testing.T) []mount {
	t.Helper()
	var out []mount
	for _, v := range s.Volumes {
		parts := strings.Split(v, ":")
		if len(parts) < 2 || len(parts) > 3 || len(parts) == 3 && parts[2] != "ro" {
			t.Fatalf("volume %q: want source:target or source:target:ro", v)
		}
		file := strings.HasPrefix(parts[0], "./")
		out = append(out, mount{source: parts[0], target: parts[1], volume: !file})
	}
	return out
}

// program returns the image without its tag.
func (s service) program() string {
	name, _, _ := strings.Cut(s.Image, ":")
	return name
}

func load(t *testing.T) project {
	t.Helper()
	var p project
	strictly(t, "compose.yaml", &p)
	return p
}

// strictly decodes a file of the folder. Unknown keys are errors.
func strictly(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// order returns the services so that each comes after those that it depends on.
func (p project) order(t *testing.T) []string {
	t.Helper()
	var out []string
	for len(out) < len(p.Services) {
		before := len(out)
		for _, name := range slices.Sorted(maps.Keys(p.Services)) {
			waits := func(on string) bool { return !slices.Contains(out, on) }
			if slices.Contains(out, name) ||
				slices.ContainsFunc(slices.Collect(maps.Keys(p.Services[name].DependsOn)), waits) {
				continue
			}
			out = append(out, name)
		}
		if len(out) == before {
			t.Fatalf("services depend on each other, or on what is not there; startable: %v", out)
		}
	}
	return out
}

var listens = regexp.MustCompile(`0\.0\.0\.0:(\d+)`)

// listening returns the ports that the arguments of a service name.
func (s service) listening() []string {
	var out []string
	for _, m := range listens.FindAllStringSubmatch(strings.Join(s.Command, "\n"), -1) {
		out = append(out, m[1])
	}
	if s.program() == "grafana/grafana" {
		out = append(out, "3000") // Grafana's default
	}
	return out
}

// address finds a service's name and a port, as other services write it.
func (p project) address() *regexp.Regexp {
	names := slices.Sorted(maps.Keys(p.Services))
	return regexp.MustCompile(`\b(` + strings.Join(names, "|") + `):(\d+)\b`)
}

// TestFile checks that the parts of the compose file fit each other.
func TestFile(t *testing.T) {
	p := load(t)
	p.order(t)
	used, published := map[string]bool{}, map[string]bool{}
	for name, s := range p.Services {
		if s.Build.Context == "" {
			_, tag, _ := strings.Cut(s.Image, ":")
			if tag == "" || tag == "latest" {
				t.Errorf("%s: image %q has no version", name, s.Image)
			}
		} else {
			dockerfile := filepath.Join(folder, s.Build.Context, "Dockerfile")
			if _, err := os.Stat(dockerfile); err != nil {
				t.Errorf("%s: build: %v", name, err)
			}
		}
		texts := slices.Clone(s.Command)
		for _, m := range s.mounts(t) {
			if m.volume {
				used[m.source] = true
				if _, ok := p.Volumes[m.source]; !ok {
					t.Errorf("%s: volume %s is not declared", name, m.source)
				}
				continue
			}
			texts = append(texts, files(t, m.source)...)
		}
		for _, text := range texts {
			for _, m := range p.address().FindAllStringSubmatch(text, -1) {
				if !slices.Contains(p.Services[m[1]].listening(), m[2]) {
					t.Errorf("%s: nothing listens on %s", name, m[0])
				}
			}
		}
		for _, port := range s.Ports {
			parts := strings.Split(port, ":")
			if len(parts) != 3 || parts[0] != "127.0.0.1" || published[parts[1]] ||
				!slices.Contains(s.listening(), parts[2]) {
				t.Errorf("%s: port %q: want 127.0.0.1, a free port and one that it listens on",
					name, port)
			}
			published[parts[1]] = true
		}
	}
	for v := range p.Volumes {
		if !used[v] {
			t.Errorf("no service uses volume %s", v)
		}
	}
}

// files returns the contents of a file of the folder, or of all files in a subfolder.
func files(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(folder, name), func(
		path string, d os.DirEntry, err error,
	) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		out = append(out, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGrafana checks the provisioning files, because no Grafana runs here: the data source is a
// Querier that listens, and the folder of dashboards is mounted.
func TestGrafana(t *testing.T) {
	p := load(t)
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool `yaml:"isDefault"`
			JSONData                     struct {
				PrometheusType    string `yaml:"prometheusType"`
				PrometheusVersion string `yaml:"prometheusVersion"`
				HTTPMethod        string `yaml:"httpMethod"`
				TimeInterval      string `yaml:"timeInterval"`
			} `yaml:"jsonData"`
		}
	}
	strictly(t, "grafana/datasources/querier.yaml", &sources)
	if sources.APIVersion != 1 || len(sources.Datasources) != 1 {
		t.Fatalf("data sources: %+v", sources)
	}
	d := sources.Datasources[0]
	m := p.address().FindStringSubmatch(d.URL)
	if m == nil || d.URL != "http://"+m[0] || !slices.Contains(p.Services[m[1]].Command, "query") {
		t.Errorf("the data source is at %q, want a Querier", d.URL)
	}
	if d.Type != "prometheus" || d.Access != "proxy" || !d.IsDefault || d.UID == "" {
		t.Errorf("the data source is %+v", d)
	}
	if _, version, _ := strings.Cut(p.Services[m[1]].Image, ":v"); d.JSONData.PrometheusVersion !=
		version || d.JSONData.PrometheusType != "Thanos" {
		t.Errorf("the data source is said to be %+v, the Querier is Thanos %s", d.JSONData, version)
	}

	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type     string
			AllowUIUpdates bool `yaml:"allowUiUpdates"`
			Options        struct{ Path string }
		}
	}
	strictly(t, "grafana/dashboards/provider.yaml", &dashboards)
	if dashboards.APIVersion != 1 || len(dashboards.Providers) != 1 {
		t.Fatalf("dashboards: %+v", dashboards)
	}
	targets := map[string]string{}
	for _, m := range p.Services["grafana"].mounts(t) {
		targets[m.target] = m.source
	}
	const provisioning = "/etc/grafana/provisioning/"
	if targets[provisioning+"datasources"] != "./grafana/datasources" ||
		targets[provisioning+"dashboards"] != "./grafana/dashboards" {
		t.Errorf("Grafana has the mounts %v", targets)
	}
	if path := dashboards.Providers[0].Options.Path; targets[path] == "" {
		t.Errorf("dashboards are read from %s, which is not mounted", path)
	}
}

// TestVersions: the compose file runs the Thanos that interop tests with.
func TestVersions(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`thanos-io/thanos (v\S+)`).FindSubmatch(mod)
	if want == nil {
		t.Fatal("go.mod has no Thanos")
	}
	for name, s := range load(t).Services {
		if s.program() == "quay.io/thanos/thanos" &&
			!strings.HasSuffix(s.Image, ":"+string(want[1])) {
			t.Errorf("%s: image %s, but interop tests with Thanos %s", name, s.Image, want[1])
		}
	}
}
