package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"larder/internal/redaction"
)

func main() {
	if os.Getenv("DEBUG") != "" {
		// Same rates as in Thanos: every tenth contended lock, and one sample per 10 ns of waiting.
		// It costs CPU.
		runtime.SetMutexProfileFraction(10)
		runtime.SetBlockProfileRate(10)
	}
	stampVersion()
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute parses the arguments and runs their command. After an error it returns 1 and writes one
// line to stderr, because the last line of a crash-looping container must say what to change. The
// line contains no secret.
func execute(args []string, stdout, stderr io.Writer) int {
	app := kingpin.New(
		"larder",
		"Store gateway for Thanos: serves the blocks of a bucket to Thanos Queriers.",
	)
	app.UsageWriter(stdout).ErrorWriter(stderr).Version(version.Print("larder"))
	app.HelpFlag.Short('h')

	commands := map[string]func() error{}
	store := registerStore(app)
	commands[store.cmd.FullCommand()] = func() error { return store.run(stderr) }
	demo := registerDemo(app)
	commands[demo.cmd.FullCommand()] = func() error { return demo.run(stdout, stderr) }
	bench := registerBench(app)
	commands[bench.measure.FullCommand()] = func() error { return bench.run(stdout, stderr) }
	commands[bench.curves.cmd.FullCommand()] = func() error { return bench.curves.run(stdout) }
	commands[bench.compare.FullCommand()] = func() error { return bench.compareReports(stdout) }
	commands[bench.budget.FullCommand()] = func() error { return bench.deriveBudgets(stdout) }
	shards := registerShard(app)
	commands[shards.status.FullCommand()] = func() error { return shards.runStatus(stdout) }
	commands[shards.wait.FullCommand()] = func() error { return shards.runWait(stderr) }
	commands[shards.force.FullCommand()] = func() error { return shards.runForce(stdout) }
	inspect := registerInspect(app, &store.conf.process)
	maps.Copy(commands, inspect.commands(stdout, stderr))

	name, err := app.Parse(args)
	if err != nil {
		err = explainArguments(app, args, err)
	} else if err = useTunedBuffers(); err == nil {
		err = commands[name]()
	}
	if err != nil {
		fmt.Fprintf(stderr, "larder: error: %s\n", redaction.Text(oneLine(err)))
		return 1
	}
	return 0
}

// oneLine joins the lines of an error. YAML decoders and joined errors have several.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}
