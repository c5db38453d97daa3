package requestlog

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func parse(t *testing.T, doc string) *Config {
	t.Helper()
	c, err := Parse([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	if c == nil {
		c = &Config{}
	}
	return c
}

func TestParseRefuses(t *testing.T) {
	f := func(doc, want string) {
		t.Helper()
		if _, err := Parse([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", doc, err, want)
		}
	}
	f("options: [", "yaml")
	f("htpp: {}", "line 1: unknown key htpp, did you mean http?")
	f(
		"http: {options: {decision: {log_stop: true}}}",
		"line 1: http.options.decision: unknown key log_stop",
	)
	f(
		"grpc: {config: [{servise: a}]}",
		"line 1: grpc.config[0]: unknown key servise, did you mean service?",
	)
	f(
		"http: {config: [{path: /, port: 70000}]}",
		"line 1: http.config[0].port: got a number, want a number from 0 to 65535",
	)
	f(
		"http: {config: [{path: /, port: web}]}",
		"line 1: http.config[0].port: got a string, want a number from 0 to 65535",
	)
	f("options: {level: info}", `options.level: got "info", want INFO, DEBUG, ERROR or WARNING`)
	f("http: {options: {level: WARN}}", `http.options.level: got "WARN"`)
	f("grpc: {options: {level: FATAL}}", `grpc.options.level: got "FATAL"`)
	f("grpc: {options: {decision: {log_end: true}}}", "grpc.options.level is missing")
	f(
		"http: {options: {level: INFO, decision: {log_start: true}}}",
		"http.options.decision: log_start needs log_end",
	)
	f("http: {config: [{path: /, port: 1}, {port: 2}]}", "http.config[1].path is missing")
	f("grpc: {config: [{method: Series}]}", "grpc.config[0].service is missing")
	f("grpc: {config: [{service: thanos.Store}]}", "grpc.config[0].method is missing")
	f("options: {level: INFO}\n---\noptions: {level: INFO}", "more than one YAML document")
}

// TestParse checks which options take precedence, with the examples of Thanos's documentation among
// others.
func TestParse(t *testing.T) {
	f := func(doc string, http, grpc decision, level slog.Level) {
		t.Helper()
		c := parse(t, doc)
		if c.http.decision != http || c.grpc.decision != grpc || c.http.level != level {
			t.Errorf(
				"%s: got http %d from level %v, grpc %d, want %d, %v, %d", doc, c.http.decision,
				c.http.level, c.grpc.decision, http, level, grpc,
			)
		}
	}
	if c, err := Parse(nil); c != nil || err != nil {
		t.Errorf("nothing: got %v, %v", c, err)
	}
	f("{}", never, never, slog.LevelError)
	f("options: {level: INFO, decision: {log_end: true}}", atEnd, atEnd, slog.LevelInfo)
	f(
		"options: {level: DEBUG, decision: {log_start: yes, log_end: on}}", atStartAndEnd,
		atStartAndEnd, slog.LevelDebug,
	)
	f("options: {level: WARNING}", never, never, slog.LevelWarn)
	f(
		"options: {level: DEBUG, decision: {log_end: true}}\nhttp: {options: {level: ERROR}}",
		never, atEnd, slog.LevelError,
	)
	f(`
http:
  config:
    - path: /api/v1/query
      port: 10904
  options:
    level: DEBUG
    decision:
      log_start: true
      log_end: true
grpc:
  config:
    - service: thanos.Store
      method: Info
  options:
    level: ERROR
    decision:
      log_start: false
      log_end: true
`, atStartAndEnd, atEnd, slog.LevelDebug)
}

func TestWhichHTTPRequests(t *testing.T) {
	const options = "options: {level: DEBUG, decision: {log_end: true}}\n"
	f := func(config, url string, want bool) {
		t.Helper()
		got := parse(
			t, options+config,
		).decideHTTP(httptest.NewRequest(http.MethodGet, url, nil)) !=
			never
		if got != want {
			t.Errorf("%q: GET %s: logged %v, want %v", config, url, got, want)
		}
	}
	f("", "http://gateway:10902/api/v1/blocks?view=loaded", true)
	f("", "http://gateway:10902/-/ready", false)
	f("", "http://gateway:10902/metrics", false)

	const one = "http: {config: [{path: /api/v1/blocks, port: 10902}]}"
	f(one, "http://gateway:10902/api/v1/blocks", true)
	f(one, "http://gateway:10902/api/v1/blocks?view=loaded", true)
	f(one, "http://[::1]:10902/api/v1/blocks", true)
	f(one, "http://gateway:10903/api/v1/blocks", false)
	f(one, "http://gateway:10902/api/v1/blocks/mark", false)
	f(one, "http://gateway/api/v1/blocks", false)
	f("http: {config: [{path: /-/ready}]}", "http://gateway/-/ready", true)
	f("http: {config: [{path: /-/ready}]}", "http://gateway:1/api/v1/blocks", false)
}

func TestWhichGRPCRequests(t *testing.T) {
	const options = "options: {level: DEBUG, decision: {log_end: true}}\n"
	f := func(config, method string, want bool) {
		t.Helper()
		if got := parse(t, options+config).decideGRPC(method) != never; got != want {
			t.Errorf("%q: %s: logged %v, want %v", config, method, got, want)
		}
	}
	f("", "/thanos.Store/Series", true)
	f("grpc: {config: [{service: thanos.Store, method: Series}]}", "/thanos.Store/Series", true)
	f(
		"grpc: {config: [{service: thanos.Store, method: Series}]}", "/thanos.Store/LabelNames",
		false,
	)
}
