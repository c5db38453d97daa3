package flags

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"

	"larder/interop/internal/gateway"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

// commandLine is the command line that a program reports.
type commandLine struct {
	// values are the values of all flags of `store`, hidden ones included, when no flag is given:
	// the output of /api/v1/status/flags.
	values map[string]string
	// shown are the flags in the manual with their defaults there: those of all commands, and those
	// of `store`.
	shown map[string]string
}

// exceptions are the flags with another default in larder, and the reason.
var exceptions = map[string]string{
	"block-meta-fetch-concurrency": "256 by default: the slots of the bucket bound it, from 96 on",
	"enable-auto-gomemlimit": "on by default: it acts only where there is a memory limit " +
		"that nothing else is set from",
}

// TestFlagsOfThanos: larder accepts every flag of the real binary, with the same default, and hides
// the same flags.
func TestFlagsOfThanos(t *testing.T) {
	ctx := context.Background()
	thanos := programs.Thanos(t)
	larder, err := gateway.BuildLarder(ctx, "../..")
	if err != nil {
		t.Fatal(err)
	}
	want, got := ask(t, thanos), ask(t, larder)
	if len(want.values) < 50 || len(want.shown) < 50 {
		t.Fatalf(
			"thanos store has %d flags, %d in its manual: too few to believe", len(want.values),
			len(want.shown),
		)
	}
	needed := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(want.values)) {
		value, ok := got.values[name]
		if !ok {
			t.Errorf("--%s: larder does not have it", name)
			continue
		}
		if a, b := canonical(want.values[name]), canonical(value); a != b {
			if needed[name] = true; exceptions[name] == "" {
				t.Errorf("--%s: %q by default, in thanos store %q", name, value, want.values[name])
			}
		}
		_, here := got.shown[name]
		_, there := want.shown[name]
		if here != there {
			t.Errorf("--%s: in larder's manual: %v, in Thanos's: %v", name, here, there)
		}
	}
	// The flags of all commands are only in the manual, except for a hidden one.
	for name, def := range want.shown {
		value, ok := got.shown[name]
		switch {
		case !ok:
			t.Errorf("--%s: not in larder's manual", name)
		case canonical(def) != canonical(value):
			if needed[name] = true; exceptions[name] == "" {
				t.Errorf("--%s: %q in larder's manual, %q in Thanos's", name, value, def)
			}
		}
	}
	for name := range exceptions {
		// The manual does not show the default of a switch.
		if _, isSwitch := want.shown[name]; !needed[name] &&
			!(isSwitch && want.values[name] == "") {
			t.Errorf("--%s is an exception that is not needed: remove it", name)
		}
	}
	t.Logf(
		"proved: %d flags of thanos store and %d of all commands, with defaults and hiddenness",
		len(want.values), len(want.shown),
	)
}

// TestFlagsAllGiven gives larder every flag of Thanos at once, with Thanos's spelling of the
// default. larder must start.
func TestFlagsAllGiven(t *testing.T) {
	ctx := context.Background()
	thanos := programs.Thanos(t)
	larder, err := gateway.BuildLarder(ctx, "../..")
	if err != nil {
		t.Fatal(err)
	}
	all := ask(t, thanos)
	args := []string{
		"--log.level=info",
		"--log.format=logfmt",
		"--debug.name=",
		"--no-enable-auto-gomemlimit",
		"--auto-gomemlimit.ratio=0.9",
	}
	for _, name := range slices.Sorted(maps.Keys(all.values)) {
		value := all.values[name]
		if shown := all.shown[name]; shown != "" && !strings.HasPrefix(shown, "<") &&
			shown != strings.ToUpper(name) {
			value = strings.Trim(shown, `"`)
		}
		switch {
		case slices.Contains([]string{"data-dir", "http-address", "grpc-address", "objstore.config",
			"objstore.config-file"}, name):
		// lists; by default of no member
		case slices.Contains([]string{"grpc-server-tls-ciphers", "grpc-server-tls-curves"}, name):
		case value == "true":
			args = append(args, "--"+name)
		case value == "false":
			args = append(args, "--no-"+name)
		default:
			args = append(args, "--"+name+"="+value)
		}
	}
	b := gateway.Bucket{Dir: t.TempDir(), DataDir: t.TempDir()}
	l, err := start(ctx, t, larder, b, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("proved: larder starts with all %d flags of thanos store at their defaults", len(args))
}

// ask runs a program over an empty bucket and reads the command line that it reports.
func ask(t *testing.T, bin string) commandLine {
	t.Helper()
	ctx := t.Context()
	out, err := exec.CommandContext(ctx, bin, "store", "--help-man").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := commandLine{shown: manual(string(out))}
	b := gateway.Bucket{Dir: t.TempDir(), DataDir: t.TempDir()}
	p, err := start(ctx, t, bin, b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	resp, err := http.Get("http://" + p.HTTPAddr + "/api/v1/status/flags")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Data map[string]string }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	c.values = body.Data
	for _, ownPlace := range []string{"data-dir", "http-address", "grpc-address", "objstore.config",
		"objstore.config-file"} {
		if _, ok := c.values[ownPlace]; ok {
			c.values[ownPlace] = "" // given by this test
		}
	}
	return c
}

// start runs one of the store gateways, with flags that both must have.
func start(
	ctx context.Context, t *testing.T, bin string, b gateway.Bucket, extra ...string,
) (*gateway.Larder, error) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "bucket.yml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "type: FILESYSTEM\nconfig:\n  directory: %q\n",
		b.Dir), 0o600); err != nil {
		return nil, err
	}
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	p, err := process.Start(ctx, process.Options{
		Name: filepath.Base(
			bin,
		), Bin: bin, Ready: process.HTTP("http://" + addrs[1] + "/-/ready"), StopSignal: syscall.SIGINT,
		Args: append(
			[]string{
				"store",
				"--data-dir=" + b.DataDir,
				"--objstore.config-file=" + conf,
				"--grpc-address=" + addrs[0],
				"--http-address=" + addrs[1],
			},
			extra...),
	})
	if err != nil {
		return nil, err
	}
	return &gateway.Larder{Process: p, Addr: addrs[0], HTTPAddr: addrs[1]}, nil
}

// manual reads --help-man: the flags before the first command, and those of `store`.
func manual(text string) map[string]string {
	shown := map[string]string{}
	in := true
	for line := range strings.Lines(text) {
		if m := regexp.MustCompile(`^\\fB([a-z][a-z-]*)(?: \[<flags>\])?\\fR$`).
			FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			in = m[1] == "store"
			continue
		}
		if m := regexp.MustCompile(`^\\fB(?:-., )?--([a-zA-Z_.-]+)(?:=(.*))?\\fR$`).
			FindStringSubmatch(strings.TrimSpace(line)); m != nil &&
			in {
			shown[m[1]] = m[2]
		}
		if strings.Contains(line, "help [<command>...]") {
			in = false
		}
	}
	for _, kingpins := range []string{"help", "version"} {
		delete(shown, kingpins)
	}
	return shown
}

// canonical makes the spellings of a value equal: sizes, durations, times, quoted texts. A
// placeholder for a missing value (<content>, BUCKET-WEB-LABEL) becomes empty.
func canonical(s string) string {
	s = strings.Trim(s, `"`)
	if strings.HasPrefix(s, "<") ||
		(s == strings.ToUpper(s) && regexp.MustCompile(`^[A-Z][A-Z._-]*$`).MatchString(s)) {
		return ""
	}
	if slices.Contains([]string{"0", "0B", "0s"}, s) {
		return "0"
	}
	if d, err := time.ParseDuration(s); err == nil {
		return d.String()
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d).String()
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05 -0700 MST"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at.UTC().Format(time.RFC3339)
		}
	}
	if n, err := units.ParseBase2Bytes(s); err == nil {
		return n.String()
	}
	return s
}
