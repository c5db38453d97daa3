package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchReplay records the log of a gateway, and sends its requests again: to a gateway within
// bench, and to an endpoint.
func TestBenchReplay(t *testing.T) {
	t.Parallel()
	bucket, dir := wideBucket(t), t.TempDir()
	for _, format := range []string{"logfmt", "json"} {
		p := startLarder(t, nil, "--log.format="+format, "store",
			"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
			"--objstore.config="+folder(bucket), "--data-dir="+t.TempDir(),
			"--store.log-requests-longer-than=1ns")
		p.await("ready\"?[=:]true")
		for _, tenant := range []string{"kitchen", "cellar"} {
			if err := everyRPC(t.Context(), p.rpc, tenant); err != nil {
				t.Fatal(err)
			}
		}
		p.stop()
		log := write(t, "slow."+format, strings.Join(p.seen, "\n"))
		result := filepath.Join(dir, format+".json")
		budgets := write(t, "budgets.yaml", "budgets: {replay: {total: 1h}}")
		stdout, stderr, err := runBench(t, "--objstore.config="+folder(bucket), "--replay="+log,
			"--replay-speed=1000", "--budgets="+budgets, "--json="+result)
		if err != nil {
			t.Fatalf("%s: %v\n%s\n%s", format, err, stderr, stdout)
		}
		s := readReport(t, result).Scenarios[0]
		if s.Name != "replay" || s.Requests != 6 || s.Errors > 0 || s.AnswerBytes == 0 ||
			*s.Reads == 0 || !strings.Contains(s.About, "slow."+format) {
			t.Errorf("%s: %+v", format, s)
		}

		p = startProcess(t, folder(bucket), "--store.log-requests-longer-than=1ns")
		p.await("readiness changed.*ready=true")
		stdout, stderr, err = runBench(t, "--endpoint="+p.rpc.Target(), "--replay="+log)
		if err != nil {
			t.Fatalf("%s, an endpoint: %v\n%s\n%s", format, err, stderr, stdout)
		}
		for _, tenant := range []string{"kitchen", "cellar"} {
			p.await("slow request.* tenant=" + tenant)
		}
		p.stop()
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--replay=" + write(t, "empty", "\n")}, `no lines "slow request"`},
		{[]string{"--replay=" + filepath.Join(dir, "missing")}, "no such file"},
		{[]string{"--replay-speed=2"}, "--replay-speed needs --replay"},
		{[]string{"--replay=x", "--only=a"}, "--only and --scenarios have no effect with --replay"},
	} {
		if _, stderr, err := runBench(t, c.args...); err == nil ||
			!strings.Contains(stderr, c.want) {
			t.Errorf("%v: %v, %s", c.args, err, stderr)
		}
	}
}
